//! Memory of this process.

/// Largest resident memory so far, in bytes; 0 where the system does not say.
pub fn peak_resident_bytes() -> u64 {
    status_bytes("VmHWM:")
}

/// Resident memory now, in bytes; 0 where the system does not say.
pub fn resident_bytes() -> u64 {
    status_bytes("VmRSS:")
}

/// Memory of the machine that programs can have without swapping, in bytes; 0 where the system does not say.
pub fn available_bytes() -> u64 {
    bytes_of("/proc/meminfo", "MemAvailable:")
}

fn status_bytes(key: &str) -> u64 {
    bytes_of("/proc/self/status", key)
}

fn bytes_of(file: &str, key: &str) -> u64 {
    let status = std::fs::read_to_string(file).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.map_or(0, |kilobytes| kilobytes * 1024)
}
