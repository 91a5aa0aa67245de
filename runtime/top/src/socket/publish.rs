//! The side of the run: one thread that accepts viewers and gives each what it can take.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{SocketError, path_of};
use crate::live::{Samples, Tap, channel};
use crate::wire;

/// How often the thread looks for new viewers when there is no sample.
const TICK: Duration = Duration::from_millis(50);
/// What the end of a run waits for viewers to take the last frame.
const FAREWELL: Duration = Duration::from_millis(200);
/// Viewers of one run; further ones are turned away.
const MOST_VIEWERS: usize = 16;

/// A run that others can watch, until it is dropped.
#[derive(Debug)]
pub struct Publisher {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Makes the socket of this process in `directory`, which is made if need be, and gives the end that a
    /// [`Live`](crate::live::Live) writes to. A socket that a killed process of the same number left is replaced.
    ///
    /// # Errors
    /// [`SocketError::Publish`], [`SocketError::PathTooLong`].
    pub fn open(directory: &Path) -> Result<(Self, Tap), SocketError> {
        let path = path_of(directory, std::process::id());
        let error = |source| SocketError::Publish { path: path.clone(), source };
        super::attach::check_length(&path)?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(error)?;
        if let Err(e) = std::fs::remove_file(&path)
            && e.kind() != ErrorKind::NotFound
        {
            return Err(error(e));
        }
        let listener = UnixListener::bind(&path).map_err(error)?;
        let (tap, samples) = channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let setup = || {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            let serve = move || Room::new(listener, samples).serve(&seen);
            std::thread::Builder::new().name("brick-live".into()).spawn(serve)
        };
        match setup() {
            Ok(thread) => Ok((Self { path, stop, thread: Some(thread) }, tap)),
            Err(e) => {
                let _ = std::fs::remove_file(&path);
                Err(error(e))
            }
        }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // First, so that nobody comes while the last frame is on its way. Somebody else may have removed it.
        let _ = std::fs::remove_file(&self.path);
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

/// A line that several viewers share.
type Line = Arc<[u8]>;

struct Room {
    listener: UnixListener,
    samples: Samples,
    viewers: Vec<Viewer>,
    last: Option<Line>,
}

impl Room {
    fn new(listener: UnixListener, samples: Samples) -> Self {
        Self { listener, samples, viewers: Vec::new(), last: None }
    }

    /// Until the run asks for the end, or its recorder is gone.
    fn serve(mut self, stop: &AtomicBool) {
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            self.accept();
            match self.samples.samples.recv_timeout(if stopping { Duration::ZERO } else { TICK }) {
                Ok(sample) => self.show(&sample),
                Err(RecvTimeoutError::Timeout) if stopping => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.flush();
        }
        // A recorder may be gone before the run is over: whoever comes then still gets the last frame.
        while !stop.load(Ordering::Relaxed) {
            self.accept();
            self.flush();
            std::thread::sleep(TICK);
        }
        let end = Instant::now() + FAREWELL;
        while self.viewers.iter().any(Viewer::is_behind) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
            self.flush();
        }
    }

    fn show(&mut self, sample: &crate::live::Sample) {
        // A recorder that has seen nothing yet has nothing to show.
        let Ok(snapshot) = sample.snapshot() else { return };
        match wire::encode(&snapshot) {
            Ok(line) => {
                let line: Line = line.into();
                self.viewers.iter_mut().for_each(|v| v.offer(&line));
                self.last = Some(line);
            }
            Err(e) => debug_assert!(false, "a frame that is no JSON: {e}"),
        }
    }

    fn accept(&mut self) {
        // Any error but "nobody is there" is the newcomer's: there will be others.
        while let Ok((stream, _)) = self.listener.accept() {
            if self.viewers.len() < MOST_VIEWERS && stream.set_nonblocking(true).is_ok() {
                let mut viewer = Viewer { stream, sending: None, next: None };
                if let Some(line) = &self.last {
                    viewer.offer(line);
                }
                self.viewers.push(viewer);
            }
        }
        self.samples.viewers.store(self.viewers.len(), Ordering::Relaxed);
    }

    fn flush(&mut self) {
        self.viewers.retain_mut(Viewer::flush);
        self.samples.viewers.store(self.viewers.len(), Ordering::Relaxed);
    }
}

struct Viewer {
    stream: UnixStream,
    /// The line that is on its way, and how much of it has gone.
    sending: Option<(Line, usize)>,
    /// The newest line after it.
    next: Option<Line>,
}

impl Viewer {
    fn offer(&mut self, line: &Line) {
        match self.sending {
            None => self.sending = Some((Arc::clone(line), 0)),
            Some(_) => self.next = Some(Arc::clone(line)),
        }
    }

    fn is_behind(&self) -> bool {
        self.sending.is_some()
    }

    /// Sends what the viewer can take; false when it is gone.
    fn flush(&mut self) -> bool {
        while let Some((line, sent)) = &mut self.sending {
            match self.stream.write(&line[*sent..]) {
                Ok(0) => return false,
                Ok(n) => *sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if *sent == line.len() {
                self.sending = self.next.take().map(|line| (line, 0));
            }
        }
        // Viewers have nothing to say; reading tells whether they are there.
        match self.stream.read(&mut [0; 64]) {
            Ok(n) => n > 0,
            Err(e) => matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}
