//! A team of processes that NCCL connects, each with a card of NVIDIA's of its own, where no MPI is. Nothing else names NCCL.
//!
//! It moves bytes: from host memory to the card, from card to card, and back. Sums are added up on the host in the same tree
//! as everywhere, so that bits do not depend on what moves them.

use crate::TeamError;
use crate::rendezvous::Rendezvous;
use crate::transport::{Transport, Voice, WORD, Word};
use crate::waiting::{GAVE_UP, LAST_WORDS, LIMIT, PATIENCE, limit_of, pause};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, sys as driver};
use cudarc::nccl::{result, sys};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Where NCCL reads how rank 0 is reached.
const ADDRESS: &str = "NCCL_COMM_ID";
const BYTES: sys::ncclDataType_t = sys::ncclDataType_t::ncclUint8;

/// This process among those that NCCL connects.
pub(crate) struct Process {
    comm: sys::ncclComm_t,
    stream: Arc<CudaStream>,
    rank: usize,
    size: usize,
    voice: Voice,
    /// How long the last words were waited for.
    limit: Cell<Option<Duration>>,
}

fn failed<E: std::fmt::Debug>(call: &'static str) -> impl Fn(E) -> TeamError {
    move |error| TeamError::Library { call, text: format!("{error:?}") }
}

/// What is missing on this machine, if something is.
fn missing() -> Option<TeamError> {
    // SAFETY: both look for a library by its names, and load it if it is there.
    let (driver, nccl) = unsafe { (driver::is_culib_present(), sys::is_culib_present()) };
    let (reason, hint) = match (driver, nccl) {
        (true, true) => return None,
        (false, _) => {
            ("there is no driver of NVIDIA's here: libcuda.so is not found", "start with mpirun or srun instead")
        }
        (true, false) => (
            "libnccl.so is not found",
            "install NCCL; of its Python wheel make a link `libnccl.so` to `libnccl.so.2` in a directory of LD_LIBRARY_PATH",
        ),
    };
    Some(TeamError::NotConnected {
        found: "the processes are to be connected by NCCL".into(),
        reason: reason.into(),
        hint: hint.into(),
    })
}

/// Does what may wait for other processes without an end, and ends this one where it takes too long.
fn within<T>(limit: Duration, voice: Voice, at: &'static str, work: impl FnOnce() -> T) -> T {
    let (done, over) = channel::<()>();
    std::thread::spawn(move || {
        if over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            (voice.ends)(&TeamError::Silent { ranks: vec![], seconds: limit.as_secs(), at: at.into() });
            std::process::exit(GAVE_UP);
        }
    });
    let result = work();
    drop(done);
    result
}

impl Process {
    /// Connects with the other processes.
    pub fn start(at: &Rendezvous, voice: Voice) -> Result<Self, TeamError> {
        if let Some(error) = missing() {
            return Err(error);
        }
        // SAFETY: the program has no other thread yet, see `world::start`.
        unsafe { std::env::set_var(ADDRESS, &at.address) };
        let context = CudaContext::new(at.card).map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let stream = context.new_stream().map_err(failed("cuStreamCreate"))?;
        let id = result::get_uniqueid().map_err(failed("ncclGetUniqueId"))?;
        let mut comm = MaybeUninit::uninit();
        let comm = within(LIMIT, voice, "ncclCommInitRank", || {
            // SAFETY: the pointer is valid, and written where the call succeeds.
            unsafe {
                result::comm_init_rank(comm.as_mut_ptr(), at.size as i32, id, at.rank as i32)
                    .map(|_| comm.assume_init())
            }
        });
        let comm = comm.map_err(failed("ncclCommInitRank"))?;
        Ok(Self { comm, stream, rank: at.rank, size: at.size, voice, limit: Cell::default() })
    }

    fn end(&self, error: &TeamError) -> ! {
        (self.voice.ends)(error);
        std::thread::sleep(LAST_WORDS);
        self.abort(GAVE_UP)
    }

    /// Waits for what was given to the stream. What goes wrong on the way ends this process: the others' communicator is
    /// broken with it.
    fn wait(&self, limit: Duration, patience: Duration, at: &dyn Fn() -> String) -> Result<(), TeamError> {
        let event = self.stream.record_event(None).map_err(failed("cuEventRecord"))?;
        let (begun, mut said) = (Instant::now(), false);
        let silent = |limit: Duration| TeamError::Silent { ranks: vec![], seconds: limit.as_secs(), at: at() };
        while !event.try_is_complete().map_err(failed("cuEventQuery"))? {
            let mut state = sys::ncclResult_t::ncclSuccess;
            // SAFETY: the communicator is alive, and the result's place is valid.
            unsafe { sys::ncclCommGetAsyncError(self.comm, &raw mut state) };
            if !matches!(state, sys::ncclResult_t::ncclSuccess | sys::ncclResult_t::ncclInProgress) {
                self.end(&TeamError::Library { call: "ncclCommGetAsyncError", text: format!("{state:?} ({})", at()) });
            }
            if begun.elapsed() > limit {
                self.end(&silent(limit));
            }
            if !said && begun.elapsed() > patience && self.rank == 0 {
                said = true;
                (self.voice.waits)(&format!("{}; all end after {} seconds", silent(patience), limit.as_secs()));
            }
            pause(begun);
        }
        Ok(())
    }

    /// Bytes on the card.
    fn upload(&self, bytes: &[u8]) -> Result<CudaSlice<u8>, TeamError> {
        self.stream.clone_htod(bytes).map_err(failed("cuMemcpyHtoD"))
    }

    fn room(&self, count: usize) -> Result<CudaSlice<u8>, TeamError> {
        self.stream.alloc_zeros(count.max(1)).map_err(failed("cuMemAlloc"))
    }

    /// Back to the host, after what was given to the stream before.
    fn download(&self, from: &CudaSlice<u8>, to: &mut [u8]) -> Result<(), TeamError> {
        self.stream.memcpy_dtoh(&from.slice(0..to.len()), to).map_err(failed("cuMemcpyDtoH"))?;
        self.stream.synchronize().map_err(failed("cuStreamSynchronize"))
    }

    fn nccl_stream(&self) -> sys::cudaStream_t {
        self.stream.cu_stream() as sys::cudaStream_t
    }

    fn gather_within(
        &self,
        own: &[u8],
        all: &mut [u8],
        (limit, patience): (Duration, Duration),
        at: &dyn Fn() -> String,
    ) -> Result<(), TeamError> {
        if own.is_empty() {
            return Ok(());
        }
        let (from, mut to) = (self.upload(own)?, self.room(all.len())?);
        {
            let (from, _from) = from.device_ptr(&self.stream);
            let (to, _to) = to.device_ptr_mut(&self.stream);
            // SAFETY: `from` has the bytes of one rank, `to` room for those of all, and both live until the stream is done.
            unsafe {
                result::all_gather(from as *const _, to as *mut _, own.len(), BYTES, self.comm, self.nccl_stream())
            }
            .map_err(failed("ncclAllGather"))?;
        }
        self.wait(limit, patience, at)?;
        self.download(&to, all)
    }
}

impl Transport for Process {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn words(&self, own: Word, limit: Option<Duration>, at: &dyn Fn() -> String) -> Result<Vec<Word>, TeamError> {
        let mut all = vec![[0; WORD]; self.size];
        self.limit.set(limit);
        let limits = limit.map_or((Duration::MAX, Duration::MAX), |limit| (limit, PATIENCE.min(limit / 4)));
        self.gather_within(bytemuck::cast_slice(&own), bytemuck::cast_slice_mut(&mut all), limits, at)?;
        Ok(all)
    }

    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<(), TeamError> {
        let limit = limit_of(all.len(), self.limit.get());
        self.gather_within(own, all, (limit, limit), &|| "ncclAllGather".into())
    }

    fn exchange(&self, own: &[u8], parts: &mut [u8]) -> Result<(), TeamError> {
        let count = own.len() / self.size;
        if count == 0 {
            return Ok(());
        }
        let (from, mut to) = (self.upload(own)?, self.room(parts.len())?);
        {
            let (from, _from) = from.device_ptr(&self.stream);
            let (to, _to) = to.device_ptr_mut(&self.stream);
            let of = |rank: usize| (rank * count) as u64;
            result::group_start().map_err(failed("ncclGroupStart"))?;
            for rank in 0..self.size {
                let (stream, peer) = (self.nccl_stream(), rank as i32);
                // SAFETY: part `rank` of either buffer has `count` bytes, and both live until the stream is done.
                unsafe {
                    result::send((from + of(rank)) as *const _, count, BYTES, peer, self.comm, stream)
                        .map_err(failed("ncclSend"))?;
                    result::recv((to + of(rank)) as *mut _, count, BYTES, peer, self.comm, stream)
                        .map_err(failed("ncclRecv"))?;
                }
            }
            result::group_end().map_err(failed("ncclGroupEnd"))?;
        }
        let limit = limit_of(parts.len(), self.limit.get());
        self.wait(limit, limit, &|| "ncclSend and ncclRecv".into())?;
        self.download(&to, parts)
    }

    fn broadcast(&self, bytes: &mut [u8]) -> Result<(), TeamError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut buffer = self.upload(bytes)?;
        {
            let (place, _place) = buffer.device_ptr_mut(&self.stream);
            // SAFETY: it is sent from and received in one buffer of that many bytes, which lives until the stream is done.
            unsafe {
                let (from, to) = (place as *const _, place as *mut _);
                result::broadcast(from, to, bytes.len(), BYTES, 0, self.comm, self.nccl_stream())
            }
            .map_err(failed("ncclBroadcast"))?;
        }
        let limit = limit_of(bytes.len(), self.limit.get());
        self.wait(limit, limit, &|| "ncclBroadcast".into())?;
        self.download(&buffer, bytes)
    }

    /// The launcher ends the others; where it does not, their communicator breaks.
    fn abort(&self, code: i32) -> ! {
        // SAFETY: the communicator is alive, and nobody uses it afterwards.
        let _ = unsafe { result::comm_abort(self.comm) };
        std::process::exit(code)
    }
}

impl Drop for Process {
    /// After a panic that nobody has caught the others would wait for ever.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort(GAVE_UP);
        }
        // SAFETY: the communicator is alive, and nobody uses it afterwards.
        let _ = unsafe { result::comm_destroy(self.comm) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Where there is a card, a world of one; elsewhere what is missing is said.
    #[test]
    fn a_process_connects_or_says_what_is_missing() {
        let voice = Voice { waits: |_| (), ends: |_| () };
        let at = Rendezvous { rank: 0, size: 1, local: (0, 1), card: 0, address: "127.0.0.1:29477".into() };
        let process = match (missing(), Process::start(&at, voice)) {
            (None, process) => process.unwrap(),
            (Some(expected), process) => {
                assert_eq!(process.err(), Some(expected.clone()));
                assert!(expected.to_string().contains("lib") && expected.hint().is_some());
                return;
            }
        };
        let word = [1, 2, 3, 4, 5, u64::MAX];
        assert_eq!(process.words(word, Some(Duration::from_secs(9)), &|| "here".into()).unwrap(), [word]);
        let (own, mut all) = ([7u8; 1000], [0u8; 1000]);
        process.gather(&own, &mut all).unwrap();
        assert_eq!(own, all);
        let mut parts = [0u8; 1000];
        process.exchange(&own, &mut parts).unwrap();
        assert_eq!(own, parts);
        process.broadcast(&mut parts).unwrap();
        assert_eq!(own, parts);
    }
}
