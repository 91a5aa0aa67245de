//! Where snapshots come from.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context;
use brick_top::Snapshot;
use brick_top::live::{Gone, Samples};
use brick_top::socket::{Attachment, Closer, Running};
use brick_top::ui::Link;
use brick_top::wire::WireError;

/// What a source has to say.
pub(super) enum Event {
    /// A new snapshot.
    Snapshot(Box<Snapshot>),
    /// There will be no more.
    Ended,
    /// There will be no more, and there should have been.
    Failed(WireError),
}

/// Snapshots of a run.
pub(super) enum Source {
    /// Of a thread of this process.
    Driven(Samples),
    /// Of another process.
    Attached(Attached),
}

/// A connection that is read on a thread of its own, so that a peer that says nothing holds up neither keys nor signals.
pub(super) struct Attached {
    events: Receiver<Event>,
    closer: Closer,
    pid: u32,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.closer.close();
    }
}

impl Source {
    /// Attaches to a run. With `silence`, one that says nothing for so long is an error.
    pub(super) fn attach(run: &Running, silence: Option<Duration>) -> anyhow::Result<Self> {
        let attachment = Attachment::open(&run.path, silence)?;
        let closer = attachment.closer().context("cannot set up the connection")?;
        // One that waits and one on its way: a reader that stops makes the run drop frames, not this program keep them.
        let (sender, events) = sync_channel(1);
        std::thread::Builder::new()
            .name("brick-top-reader".into())
            .spawn(move || read(attachment, &sender))
            .context("cannot start a thread")?;
        Ok(Self::Attached(Attached { events, closer, pid: run.pid }))
    }

    /// The next event, if there is one within `wait`. After the end there are only ends.
    pub(super) fn next(&self, wait: Duration) -> Option<Event> {
        match self {
            Self::Driven(samples) => match samples.next_within(wait) {
                // Before the first forward call there is nothing to show.
                Ok(sample) => sample?.snapshot().ok().map(|s| Event::Snapshot(Box::new(s))),
                Err(Gone) => Some(Event::Ended),
            },
            Self::Attached(a) => match a.events.recv_timeout(wait) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Event::Ended),
            },
        }
    }

    /// How this program and the run are connected.
    pub(super) fn link(&self) -> Link {
        match self {
            Self::Driven(_) => Link::Driving,
            Self::Attached(a) => Link::Attached { pid: Some(a.pid).filter(|pid| *pid > 0) },
        }
    }
}

/// Until the peer, or whoever listens here, is gone.
fn read(mut attachment: Attachment, events: &SyncSender<Event>) {
    loop {
        let event = match attachment.next_frame() {
            Ok(Some(snapshot)) => Event::Snapshot(Box::new(snapshot)),
            Ok(None) => Event::Ended,
            Err(e) => Event::Failed(e),
        };
        let last = !matches!(event, Event::Snapshot(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}
