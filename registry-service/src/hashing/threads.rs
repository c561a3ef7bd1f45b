//! The threads that argon2 runs on, each with a block of memory that it reuses.
//!
//! On tokio's blocking threads every run would allocate 19 MiB on whichever thread is free, and the allocator would
//! keep them for each thread. Here the caller of a run holds a permit, so that there are never more threads than
//! permits. Threads start when they are first needed and end with their [`Threads`].

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use argon2::{Argon2, Block};
use tokio::sync::oneshot;
use zeroize::Zeroize;

use crate::error::Error;

/// How long an idle thread keeps its memory.
const MEMORY_LIFE: Duration = Duration::from_secs(60);

/// A run, and what its thread does when it is idle again.
type Work = Box<dyn FnOnce(&mut Memory) -> Completion + Send>;
type Completion = Box<dyn FnOnce() + Send>;

/// Threads of one name and priority.
#[derive(Debug)]
pub(super) struct Threads {
    name: &'static str,
    nice: bool,
    /// The idle threads. The last one gets the next run, so that little work keeps little memory.
    idle: Mutex<Vec<SyncSender<Work>>>,
}

impl Threads {
    /// No thread yet. `name` has at most 15 bytes, as systems show no more.
    pub(super) fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            nice: false,
            idle: Mutex::default(),
        })
    }

    /// The same, of the lowest priority.
    pub(super) fn nice(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            nice: true,
            idle: Mutex::default(),
        })
    }

    /// Runs `work` on one of the threads, and holds `permits` until it ends, although the caller may go away.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Hashing`] if no thread can start.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        permits: impl Send + 'static,
        work: impl FnOnce(&mut Memory) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.give(Box::new(move |memory| {
            let result = work(memory);
            Box::new(move || {
                drop(permits);
                // The caller may have gone away.
                let _ = answer.send(result);
            })
        }))?;
        answered.await.map_err(|_| Error::Hashing)?
    }

    fn give(self: &Arc<Self>, work: Work) -> Result<(), Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(idle) => idle.send(work).map_err(|_| Error::Hashing),
            None => self.start(work),
        }
    }

    fn start(self: &Arc<Self>, first: Work) -> Result<(), Error> {
        let (threads, nice) = (Arc::downgrade(self), self.nice);
        let thread = thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            if nice {
                lower_priority();
            }
            serve(&threads, first);
        });
        thread.map(drop).map_err(|_| Error::Hashing)
    }

    /// Counts the calling thread as idle. Its next work arrives on the receiver.
    fn idle(&self) -> Receiver<Work> {
        let (way, works) = mpsc::sync_channel(1);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(way);
        works
    }
}

/// Does work until the [`Threads`] are dropped.
fn serve(threads: &Weak<Threads>, first: Work) {
    let mut memory = Memory::default();
    let mut next = Some(first);
    while let Some(work) = next {
        let complete = work(&mut memory);
        // The next holder of the permits must find this thread idle.
        let works = threads.upgrade().map(|threads| threads.idle());
        complete();
        next = works.and_then(|works| wait(&works, &mut memory, MEMORY_LIFE));
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

/// The increment of niceness. With less, a thread does not yield as soon as a serving thread has work.
#[cfg(target_os = "linux")]
const NICER: i32 = 19;

/// Lowers the calling thread's priority. Elsewhere than on Linux, niceness is one of the whole process.
#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::warn!(%error, "hashing at the usual priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

/// What argon2 fills, reused by the next run. It is wiped after each.
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
    ) -> Result<(), Error> {
        let blocks = self.blocks(argon2.params().block_count())?;
        let filled = argon2.hash_password_into_with_memory(secret, salt, hash, &mut *blocks);
        // A tenth of a run's cost. What the memory holds is worth as much as the hash.
        blocks.iter_mut().for_each(Zeroize::zeroize);
        filled.map_err(|_| Error::Hashing)
    }

    fn blocks(&mut self, count: usize) -> Result<&mut [Block], Error> {
        if self.0.len() < count {
            // Not grown, since growing copies.
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
            (Threads::new("argon2-nice"), usual),
            (Threads::nice("argon2-nice"), (usual + NICER).min(19)),
        ] {
            let there = threads.run((), |_| Ok(proc_dir().unwrap())).await.unwrap();
            assert_eq!(niceness(&there), expected);
            let name = fs::read_to_string(there.join("comm")).unwrap();
            assert_eq!(name.trim_end(), "argon2-nice");
        }
        assert_eq!(niceness(&here), usual);
    }

    #[tokio::test]
    async fn a_thread_is_used_again_and_one_that_failed_is_replaced() {
        let threads = Threads::new("argon2-again");
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
    fn an_idle_thread_gives_its_memory_back_and_still_takes_work() {
        let (way, works) = mpsc::sync_channel::<Work>(1);
        let idle = thread::spawn(move || {
            let mut memory = Memory(vec![Block::new(); 8]);
            let work = wait(&works, &mut memory, Duration::ZERO);
            let kept = memory.0.capacity();
            work.unwrap()(&mut memory)();
            memory.0 = vec![Block::new(); 8];
            (kept, wait(&works, &mut memory, MEMORY_LIFE).is_none())
        });
        // Nothing shows when the thread begins to wait: it has all the time it needs.
        thread::sleep(Duration::from_millis(200));
        way.send(Box::new(|_| Box::new(|| ()))).unwrap();
        drop(way);
        assert_eq!(idle.join().unwrap(), (0, true));
    }

    #[test]
    fn nothing_of_a_run_is_left() {
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
