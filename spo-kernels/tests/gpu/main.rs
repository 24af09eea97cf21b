//! Every GPU kernel on a device against a plain reference in f64. The tests fail where no device opens: software Vulkan
//! (Mesa's lavapipe) is enough.

mod attention;
mod device;
mod elementwise;
mod head;
mod norm;
mod optimizer;
