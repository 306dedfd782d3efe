//! The executor alone: order, time, stopping, and what it says when nothing goes on.

use std::sync::atomic::{AtomicU32, Ordering};

use futures::channel::oneshot;

use super::*;

/// Ten tasks that run in three rounds; the order in which they were seen.
fn order(seed: u64, schedule: Schedule) -> Vec<u32> {
    let executor = Executor::new(seed, schedule);
    let order = Arc::new(Mutex::new(Vec::new()));
    let handles: Vec<TaskHandle> = (0..10)
        .map(|task| {
            let (order, clock) = (Arc::clone(&order), executor.clone());
            let run = async move {
                for _ in 0..3 {
                    lock(&order).push(task);
                    clock.sleep(Micros(10)).await;
                }
            };
            executor.spawn(None, "counter", Box::pin(run))
        })
        .collect();
    assert_eq!(executor.run_until_quiet(), Ok(()));
    drop(handles);
    std::mem::take(&mut *lock(&order))
}

#[test]
fn the_order_is_the_seeds_and_nothing_elses() {
    assert_eq!(order(1, Schedule::Shuffled), order(1, Schedule::Shuffled));
    assert_ne!(order(1, Schedule::Shuffled), order(2, Schedule::Shuffled));
    let fifo: Vec<u32> = (0..3).flat_map(|_| 0..10).collect();
    assert_eq!(order(1, Schedule::Fifo), fifo);
}

#[test]
fn time_advances_only_when_nothing_can_run() {
    let executor = Executor::new(1, Schedule::Shuffled);
    let (first, second) = (executor.sleep(Micros(70)), executor.sleep(Micros(30)));
    let times = executor.block_on(async {
        second.await;
        let early = executor.now();
        first.await;
        (early, executor.now())
    });
    assert_eq!(times, Ok((Micros(30), Micros(70))));
}

#[test]
fn a_dropped_sleep_does_not_hold_time_up() {
    let executor = Executor::new(1, Schedule::Shuffled);
    let mut long = Box::pin(executor.sleep(Micros::from_secs(3600)));
    let polled =
        executor.block_on(std::future::poll_fn(|ctx| Poll::Ready(long.as_mut().poll(ctx))));
    assert_eq!(polled, Ok(Poll::Pending));
    drop(long);
    assert_eq!(executor.run_until_quiet(), Ok(()));
    assert_eq!(executor.now(), Micros::ZERO);
}

/// Counts how often it was dropped.
struct Dropped(Arc<AtomicU32>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_dropped_handle_stops_its_task_at_the_next_turn() {
    let executor = Executor::new(1, Schedule::Shuffled);
    let count = Arc::new(AtomicU32::new(0));
    let guard = Dropped(Arc::clone(&count));
    let forever = async move {
        let _guard = guard;
        std::future::pending::<()>().await;
    };
    let handle = executor.spawn(None, "forever", Box::pin(forever));
    drop(handle);
    assert_eq!(count.load(Ordering::Relaxed), 0, "not inside the call that stops it");
    assert_eq!(executor.run_until_quiet(), Ok(()));
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn a_task_may_stop_itself_and_others_from_a_destructor() {
    let executor = Executor::new(1, Schedule::Shuffled);
    let inner = executor.spawn(None, "inner", Box::pin(std::future::pending()));
    let (send, receive) = oneshot::channel::<TaskHandle>();
    let outer = async move {
        let own = receive.await;
        let _held = inner;
        drop(own);
        std::future::pending::<()>().await;
    };
    let handle = executor.spawn(None, "outer", Box::pin(outer));
    assert!(send.send(handle).is_ok());
    assert_eq!(executor.run_until_quiet(), Ok(()));
    assert!(lock(&executor.0.state).tasks.is_empty());
}

#[test]
fn a_node_stops_whole_and_alone() {
    let executor = Executor::new(1, Schedule::Shuffled);
    let tasks = [0, 0, 1]
        .map(|node| executor.spawn(Some(NodeId(node)), "task", Box::pin(std::future::pending())));
    executor.stop_node(NodeId(0));
    assert_eq!(executor.run_until_quiet(), Ok(()));
    assert_eq!(lock(&executor.0.state).tasks.len(), 1);
    drop(tasks);
}

#[test]
fn a_run_of_a_node_that_is_over_starts_nothing() {
    let executor = Executor::new(1, Schedule::Shuffled);
    let life = Arc::new(Life::new(NodeId(0), 0));
    let spawn = SimSpawn::new(executor.clone(), Arc::clone(&life));
    life.end();
    let _handle = spawn.spawn("late", Box::pin(std::future::pending()));
    assert!(lock(&executor.0.state).tasks.is_empty());
}

#[test]
fn a_deadlock_is_told_with_the_tasks_that_wait() {
    let executor = Executor::new(1, Schedule::Shuffled);
    let _task = executor.spawn(Some(NodeId(3)), "reader", Box::pin(std::future::pending()));
    let stuck = executor.block_on(std::future::pending::<()>());
    assert!(matches!(&stuck, Err(Stuck::Quiet { waiting, .. }) if waiting.contains("n3:reader")));
}

#[test]
fn a_busy_loop_and_an_endless_run_are_told() {
    let executor = Executor::new(1, Schedule::Shuffled);
    let busy = std::future::poll_fn(|ctx| {
        ctx.waker().wake_by_ref();
        Poll::<()>::Pending
    });
    assert!(matches!(executor.block_on(busy), Err(Stuck::Busy { .. })));

    let executor = Executor::new(1, Schedule::Shuffled);
    executor.set_end(Micros::from_secs(60));
    let ticking = async {
        loop {
            executor.sleep(Micros::from_secs(1)).await;
        }
    };
    assert!(matches!(executor.block_on::<()>(ticking), Err(Stuck::Late { .. })));
}

#[test]
fn shutting_down_drops_what_destructors_start() {
    struct Restart(Executor);
    impl Drop for Restart {
        fn drop(&mut self) {
            self.0.schedule(Micros::ZERO, || {});
        }
    }
    let executor = Executor::new(1, Schedule::Shuffled);
    let restart = Restart(executor.clone());
    let task = async move {
        let _restart = restart;
        std::future::pending::<()>().await;
    };
    let handle = executor.spawn(None, "restart", Box::pin(task));
    executor.shut_down();
    let state = lock(&executor.0.state);
    assert!(state.tasks.is_empty() && state.timers.is_empty());
    drop(state);
    drop(handle);
}
