//! Answering many who wait, by one wake-up of each thread.
//!
//! An answer that comes from another thread wakes its waiter by a system call, for each of them: a commit of thirty
//! mints ended with thirty, before the next one could begin. Here a thread is sent all of its answers at once, and
//! hands them out itself.

use std::cell::RefCell;

use tokio::runtime::{Handle, Id};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// Hands out one thread's answers.
type Errand = Box<dyn FnOnce() + Send>;
/// Where a thread takes them.
type Desk = UnboundedSender<Errand>;
/// Answers, each beside its waiter.
type Answers<T> = Vec<(oneshot::Sender<T>, T)>;

thread_local! {
    /// This thread's desk, once somebody waited here, and the runtime that serves it.
    static DESK: RefCell<Option<(Id, Desk)>> = const { RefCell::new(None) };
}

/// Who waits for an answer, and on which thread.
#[derive(Debug)]
pub(super) struct Reply<T> {
    to: oneshot::Sender<T>,
    /// `None` outside of a runtime.
    desk: Option<Desk>,
}

/// A reply that is awaited on this thread.
pub(super) fn reply<T>() -> (Reply<T>, oneshot::Receiver<T>) {
    let (to, answered) = oneshot::channel();
    (Reply { to, desk: desk() }, answered)
}

/// Answers all, in their order. A waiter that has gone away is no error.
pub(super) fn answer_all<T: Send + 'static>(answers: impl IntoIterator<Item = (Reply<T>, T)>) {
    let mut by_desk: Vec<(Desk, Answers<T>)> = Vec::new();
    for (reply, answer) in answers {
        let Some(desk) = reply.desk else {
            let _ = reply.to.send(answer);
            continue;
        };
        match by_desk.iter_mut().find(|(known, _)| known.same_channel(&desk)) {
            Some((_, answers)) => answers.push((reply.to, answer)),
            None => by_desk.push((desk, vec![(reply.to, answer)])),
        }
    }
    for (desk, answers) in by_desk {
        let errand: Errand = Box::new(move || {
            for (to, answer) in answers {
                let _ = to.send(answer);
            }
        });
        // the runtime that waited there has ended, perhaps not with everyone who waits
        if let Err(unsent) = desk.send(errand) {
            (unsent.0)();
        }
    }
}

/// This thread's desk; a new one where the last one's runtime is another or has ended: whoever waits may be the only
/// one that drives his.
fn desk() -> Option<Desk> {
    let runtime = Handle::try_current().ok()?;
    DESK.with_borrow_mut(|known| {
        if let Some((id, desk)) = known
            && *id == runtime.id()
            && !desk.is_closed()
        {
            return Some(desk.clone());
        }
        let (desk, errands) = unbounded_channel();
        runtime.spawn(run(errands));
        *known = Some((runtime.id(), desk.clone()));
        Some(desk)
    })
}

async fn run(mut errands: UnboundedReceiver<Errand>) {
    while let Some(errand) = errands.recv().await {
        errand();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_is_answered_whatever_became_of_the_runtime_he_asked_on() {
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = runtime();
        let (early, mut early_answer) = first.block_on(async { reply() });
        let (other, other_answer) = first.block_on(async { reply() });
        answer_all([(early, 1), (other, 2)]);
        first.block_on(async {
            assert_eq!((&mut early_answer).await, Ok(1));
            assert_eq!(other_answer.await, Ok(2));
        });
        let second = runtime();
        let (beside, beside_answer) = second.block_on(async { reply() });
        answer_all([(beside, 6)]);
        assert_eq!(second.block_on(beside_answer), Ok(6), "nobody drives the first one meanwhile");
        let (late, late_answer) = first.block_on(async { reply() });
        drop(first);
        answer_all([(late, 3)]);
        assert_eq!(second.block_on(late_answer), Ok(3), "its runtime is gone");
        let (anew, anew_answer) = second.block_on(async { reply() });
        let (outside, mut outside_answer) = reply();
        answer_all([(anew, 4), (outside, 5)]);
        assert_eq!(outside_answer.try_recv(), Ok(5), "no runtime: at once");
        assert_eq!(second.block_on(anew_answer), Ok(4), "the thread has another runtime now");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn threads_get_their_answers_in_order_and_nobody_anothers() {
        let mut waiting = tokio::task::JoinSet::new();
        let (asks, mut asked) = unbounded_channel();
        for number in 0..1000_u32 {
            let asks = asks.clone();
            waiting.spawn(async move {
                let (reply, answered) = reply();
                asks.send((reply, number)).unwrap();
                assert_eq!(answered.await, Ok(number));
            });
        }
        drop(asks);
        let mut batch = Vec::new();
        while asked.recv_many(&mut batch, 64).await > 0 {
            answer_all(batch.drain(..));
        }
        while let Some(ended) = waiting.join_next().await {
            ended.unwrap();
        }
    }
}
