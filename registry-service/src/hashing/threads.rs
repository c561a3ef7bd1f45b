//! The threads that argon2 runs on, each with a block of memory that it reuses.
//!
//! On tokio's blocking threads each run would allocate 19 MiB on any free thread, and the allocator would keep them for
//! each thread. Here the caller of a run holds a permit, so that there are never more threads than permits. Threads
//! start when they are first needed and end with their [`Threads`].

use std::{
    mem,
    sync::{
        Arc, Weak,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use accord::lock::Lock;
use argon2::{Argon2, Block};
use tokio::sync::oneshot;
use zeroize::Zeroize;

use crate::error::{Error, Result};

/// How long an idle thread keeps its memory.
const MEMORY_LIFETIME: Duration = Duration::from_secs(60);

/// A run, and what its thread does when it is idle again.
type Work = Box<dyn FnOnce(&mut Memory) -> Completion + Send>;
type Completion = Box<dyn FnOnce() + Send>;

/// Threads of one name and priority.
#[derive(Debug)]
pub(super) struct Threads {
    name: &'static str,
    nice: bool,
    /// The idle threads. The last one gets the next run, so that light load uses the memory of few threads.
    idle: Lock<Vec<SyncSender<Work>>>,
}

impl Threads {
    /// Starts no thread yet. `name` has at most 15 bytes, because systems show no more. A `nice` thread has the lowest
    /// priority.
    pub(super) fn new(name: &'static str, nice: bool) -> Arc<Self> {
        Arc::new(Self {
            name,
            nice,
            idle: Lock::default(),
        })
    }

    /// Runs `work` on one of the threads. Holds `permits` until it ends, even if the caller goes away.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Hashing`] if no thread can start.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        permits: impl Send + 'static,
        work: impl FnOnce(&mut Memory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.assign(Box::new(move |memory| {
            let result = work(memory);
            Box::new(move || {
                drop(permits);
                // The caller may have gone away.
                let _ = sender.send(result);
            })
        }))?;
        receiver.await.map_err(|_| Error::Hashing)?
    }

    fn assign(self: &Arc<Self>, work: Work) -> Result<()> {
        let idle = self.idle.lock().pop();
        match idle {
            Some(idle) => idle.send(work).map_err(|_| Error::Hashing),
            None => self.start(work),
        }
    }

    fn start(self: &Arc<Self>, first: Work) -> Result<()> {
        let (threads, nice) = (Arc::downgrade(self), self.nice);
        let thread = thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            if nice {
                lower_priority();
            }
            serve(&threads, first);
        });
        thread.map(drop).map_err(|_| Error::Hashing)
    }

    /// Adds the calling thread to the idle ones. Its next work arrives on the receiver.
    fn idle(&self) -> Receiver<Work> {
        let (sender, works) = mpsc::sync_channel(1);
        let mut idle = self.idle.lock();
        idle.push(sender);
        works
    }
}

/// Runs work until the [`Threads`] are dropped.
fn serve(threads: &Weak<Threads>, first: Work) {
    let mut memory = Memory::default();
    let mut next = Some(first);
    while let Some(work) = next {
        let complete = work(&mut memory);
        // Becomes idle before it releases the permits, so that their next holder finds this thread.
        let works = threads.upgrade().map(|threads| threads.idle());
        complete();
        next = works.and_then(|works| wait(&works, &mut memory, MEMORY_LIFETIME));
    }
}

/// Waits for work, and frees the memory after `life`.
fn wait(works: &Receiver<Work>, memory: &mut Memory, life: Duration) -> Option<Work> {
    match works.recv_timeout(life) {
        Ok(work) => Some(work),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => {
            *memory = Memory::default();
            works.recv().ok()
        }
    }
}

/// The increment of niceness. With less, a thread would not yield as soon as a serving thread has work.
#[cfg(target_os = "linux")]
const NICER: i32 = 19;

/// Lowers the calling thread's priority. On other systems than Linux, niceness belongs to the whole process.
#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::warn!(%error, "could not lower the priority of a hashing thread");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

/// The memory that argon2 fills. The next run reuses it. It is wiped after each run.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

impl Memory {
    /// Writes the hash of `secret` to `hash`.
    ///
    /// # Errors
    /// [`Error::Hashing`].
    pub(super) fn fill(
        &mut self,
        argon2: &Argon2<'_>,
        secret: &[u8],
        salt: &[u8],
        hash: &mut [u8],
    ) -> Result<()> {
        let blocks = self.blocks(argon2.params().block_count())?;
        let filled = argon2.hash_password_into_with_memory(secret, salt, hash, &mut *blocks);
        // Costs a tenth of a run. Whoever reads the memory knows as much as from the hash.
        blocks.iter_mut().for_each(Zeroize::zeroize);
        filled.map_err(|_| Error::Hashing)
    }

    fn blocks(&mut self, count: usize) -> Result<&mut [Block]> {
        if self.0.len() < count {
            // Allocates anew, because growing would copy.
            drop(mem::take(&mut self.0));
            let mut blocks = Vec::new();
            blocks.try_reserve_exact(count).map_err(|_| Error::Hashing)?;
            blocks.resize(count, Block::new());
            self.0 = blocks;
        }
        Ok(&mut self.0[..count])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, path::PathBuf};

    use super::*;

    /// The calling thread's directory under `/proc`, where there is one.
    fn proc_dir() -> Option<PathBuf> {
        fs::canonicalize("/proc/thread-self").ok()
    }

    fn niceness(thread: &std::path::Path) -> i32 {
        let stat = fs::read_to_string(thread.join("stat")).unwrap();
        // The 19th field; the second is in parentheses and may hold blanks.
        let (_, after_name) = stat.rsplit_once(") ").unwrap();
        after_name.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn threads_of_low_priority_are_nicer_and_only_those() {
        let Some(here) = proc_dir() else { return };
        let usual = niceness(&here);
        for (threads, expected) in [
            (Threads::new("argon2-nice", false), usual),
            (Threads::new("argon2-nice", true), (usual + NICER).min(19)),
        ] {
            let there = threads.run((), |_| Ok(proc_dir().unwrap())).await.unwrap();
            assert_eq!(niceness(&there), expected);
            let name = fs::read_to_string(there.join("comm")).unwrap();
            assert_eq!(name.trim_end(), "argon2-nice");
        }
        assert_eq!(niceness(&here), usual);
    }

    #[tokio::test]
    async fn an_idle_thread_is_reused_and_a_panicked_one_is_replaced() {
        let threads = Threads::new("argon2-again", false);
        let id = |_: &mut Memory| Ok(thread::current().id());
        let first = threads.run((), id).await.unwrap();
        for _ in 0..3 {
            assert_eq!(threads.run((), id).await.unwrap(), first);
        }
        let permit = Arc::new(());
        let failed = threads
            .run::<()>(permit.clone(), |_| std::panic::resume_unwind(Box::new(())))
            .await;
        assert!(matches!(failed, Err(Error::Hashing)));
        assert_ne!(threads.run((), id).await.unwrap(), first);
        assert_eq!(Arc::strong_count(&permit), 1);
    }

    #[test]
    fn an_idle_thread_frees_its_memory_and_still_takes_work() {
        let (way, works) = mpsc::sync_channel::<Work>(1);
        let idle = thread::spawn(move || {
            let mut memory = Memory(vec![Block::new(); 8]);
            let work = wait(&works, &mut memory, Duration::ZERO);
            let capacity = memory.0.capacity();
            work.unwrap()(&mut memory)();
            memory.0 = vec![Block::new(); 8];
            (capacity, wait(&works, &mut memory, MEMORY_LIFETIME).is_none())
        });
        // Nothing shows when the thread begins to wait: it has all the time it needs.
        thread::sleep(Duration::from_millis(200));
        way.send(Box::new(|_| Box::new(|| ()))).unwrap();
        drop(way);
        assert_eq!(idle.join().unwrap(), (0, true));
    }

    #[test]
    fn memory_is_wiped_after_each_run() {
        let params = argon2::Params::new(64, 2, 1, None).unwrap();
        let argon2 = Argon2::from(params);
        let (mut memory, mut hashes) = (Memory::default(), [[0; 32]; 2]);
        for hash in &mut hashes {
            memory.fill(&argon2, b"password", b"salt and salt", hash).unwrap();
            assert!(
                memory
                    .0
                    .iter()
                    .all(|block| *block.as_ref() == [0; Block::SIZE / 8])
            );
        }
        assert_eq!(hashes[0], hashes[1]);
        let too_short = memory.fill(&argon2, b"password", b"salt", &mut hashes[0]);
        assert!(matches!(too_short, Err(Error::Hashing)));
    }
}
