//! Reading the bodies of requests: bounded in size and time, and in memory over all requests together
//! (invariant 5), so that thousands of them which never end cannot fill the machine.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Kind, Problem};
use crate::sender::SendError;

/// A body that takes longer to arrive is given up.
const DEADLINE: Duration = Duration::from_secs(30);
/// What every body may take, so that small ones never wait for room that large ones have.
const SMALL: usize = 16 << 10;
/// What all others may take that are being read, and answered.
const LARGE_BYTES: usize = 64 << 20;
/// Room is taken in steps of this size.
const STEP: usize = 64 << 10;

/// Room for the bodies of an instance.
pub(super) struct Intake {
    room: Arc<Semaphore>,
}

/// A body that has arrived whole, with its room.
#[derive(Default)]
pub(super) struct Arrived {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl Default for Intake {
    fn default() -> Intake {
        Intake { room: Arc::new(Semaphore::new(LARGE_BYTES)) }
    }
}

impl Intake {
    /// Reads a body of up to `max_body` bytes. The room is given back with the second part.
    pub(super) async fn read(
        &self,
        body: Body,
        max_body: usize,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem> {
        match tokio::time::timeout(DEADLINE, self.collect(body, max_body)).await {
            Ok(arrived) => arrived.map(|Arrived { bytes, room }| (bytes.into(), room)),
            Err(_) => {
                Err(Kind::InvalidData
                    .because("The body did not arrive within 30 s: send it again."))
            }
        }
    }

    async fn collect(&self, mut body: Body, max_body: usize) -> Result<Arrived, Problem> {
        let mut arrived = Arrived::default();
        while let Some(frame) = body.frame().await {
            let broken = |_| Kind::InvalidData.because("The body broke off: send it again.");
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            let length = arrived.bytes.len() + data.len();
            if length > max_body {
                return Err(Kind::TooLarge.because(format!(
                    "The body is over the limit of {max_body} bytes (TIDINGS_MAX_BODY): send less."
                )));
            }
            self.make_room(&mut arrived, length)?;
            arrived.bytes.extend_from_slice(&data);
        }
        Ok(arrived)
    }

    fn make_room(&self, arrived: &mut Arrived, length: usize) -> Result<(), Problem> {
        let has = SMALL + arrived.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let lacks = length.saturating_sub(has);
        if lacks == 0 {
            return Ok(());
        }
        let steps = lacks.div_ceil(STEP) * STEP;
        let more = self.room.clone().try_acquire_many_owned(steps as u32);
        let more = more.map_err(|_| SendError::Overloaded)?;
        match &mut arrived.room {
            Some(room) => room.merge(more),
            None => arrived.room = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 8 << 20;

    fn body(length: usize) -> Body {
        Body::from(vec![0; length])
    }

    #[tokio::test]
    async fn large_bodies_share_their_room_and_small_ones_need_none() {
        let intake = Intake::default();
        let mut held = Vec::new();
        while let Ok((bytes, room)) = intake.read(body(MAX), MAX).await {
            assert_eq!(bytes.len(), MAX);
            held.push(room);
        }
        assert_eq!(held.len(), LARGE_BYTES / MAX);
        assert!(intake.read(body(SMALL), MAX).await.is_ok());

        held.pop();
        assert!(intake.read(body(MAX), MAX).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_is_refused_gives_its_room_back() {
        let intake = Intake::default();
        assert!(intake.read(body(MAX + 1), MAX).await.is_err());
        assert_eq!(intake.room.available_permits(), LARGE_BYTES);
    }
}
