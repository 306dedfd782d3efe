//! A deterministic executor: one thread, virtual time, a seeded order.
//!
//! Tasks that can run wait in a ready queue; which of them runs next is drawn from the seed, so
//! that races show. Only when none can run does time advance, to the next timer.
//!
//! ```text
//! turn: bury stopped tasks -> poll one ready task
//!                          \-> none ready: advance to the next timer and fire it
//!                                          \-> no timer: quiet (a deadlock, if one waits)
//! ```
//!
//! # Invariants
//!
//! * No future is polled or dropped while the executor's lock is held, so that a destructor may
//!   stop, spawn and schedule. A stopped task is dropped at the next turn, not inside the call
//!   that stopped it: as with a real runtime, the caller may hold locks.
//! * Timers of one instant fire in the order in which they were set.
//!
//! Not here: threads, real time, and fairness (chance is fair enough).

mod sleep;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};

use commons_port::BoxFuture;
use commons_port::time::{Spawn, TaskHandle};

use crate::clock::Micros;
use crate::entropy::Rng;
use crate::life::{Life, NodeId};
use crate::lock;

pub use sleep::Sleep;

/// Which ready task runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// The one that waits longest.
    Fifo,
    /// Any, drawn from the seed.
    Shuffled,
}

/// Why a run was given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum Stuck {
    #[error("at {at} nothing can run and no timer is set: a deadlock; waiting: {waiting}")]
    Quiet { at: Micros, waiting: String },

    #[error("at {at} {steps} steps were taken and time stands still: a busy loop")]
    Busy { at: Micros, steps: u64 },

    #[error("at {at} the run is longer than it may be; waiting: {waiting}")]
    Late { at: Micros, waiting: String },
}

/// A busy loop shows within this many steps at one instant. Ten thousand nodes that all wake at
/// once and wake each other a few times stay below it.
const STEPS_AT_ONCE_MAX: u64 = 4_000_000;

/// The task that [`Executor::block_on`] polls itself.
const MAIN: u64 = 0;

/// Runs tasks in virtual time. Clones are the same executor.
#[derive(Clone)]
pub struct Executor(Arc<Core>);

struct Core {
    state: Mutex<State>,
}

struct State {
    now: Micros,
    end: Micros,
    steps_at_once: u64,
    next_id: u64,
    tasks: BTreeMap<u64, Task>,
    ready: VecDeque<u64>,
    is_main_ready: bool,
    timers: BTreeMap<TimerKey, Timer>,
    buried: Vec<BoxFuture<'static, ()>>,
    schedule: Schedule,
    rng: Rng,
}

/// When a timer fires, and its place among those of that instant.
type TimerKey = (Micros, u64);

enum Timer {
    Wake(Waker),
    Call(Box<dyn FnOnce() + Send>),
}

struct Task {
    name: &'static str,
    node: Option<NodeId>,
    /// None while it is being polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Arc<TaskWaker>,
    is_ready: bool,
}

struct TaskWaker {
    id: u64,
    core: Weak<Core>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(core) = self.core.upgrade() {
            lock(&core.state).make_ready(self.id);
        }
    }
}

/// What a turn does.
enum Turn {
    Main,
    Task(u64, BoxFuture<'static, ()>, Arc<TaskWaker>),
    Timer(Timer),
    Nothing,
}

impl State {
    fn make_ready(&mut self, id: u64) {
        if id == MAIN {
            if !self.is_main_ready {
                self.is_main_ready = true;
                self.ready.push_back(MAIN);
            }
            return;
        }
        if let Some(task) = self.tasks.get_mut(&id)
            && !task.is_ready
        {
            task.is_ready = true;
            self.ready.push_back(id);
        }
    }

    /// Removes a task; its future is dropped at the next turn.
    fn stop(&mut self, id: u64) {
        if let Some(task) = self.tasks.remove(&id) {
            self.buried.extend(task.future);
        }
    }

    fn take_ready(&mut self) -> Option<u64> {
        if self.ready.is_empty() {
            return None;
        }
        let index = match self.schedule {
            Schedule::Fifo => 0,
            Schedule::Shuffled => self.rng.index(self.ready.len()),
        };
        self.ready.swap(0, index);
        self.ready.pop_front()
    }

    fn next_turn(&mut self) -> Turn {
        while let Some(id) = self.take_ready() {
            self.steps_at_once += 1;
            if id == MAIN {
                self.is_main_ready = false;
                return Turn::Main;
            }
            // A task that was stopped while it waited is gone.
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            task.is_ready = false;
            if let Some(future) = task.future.take() {
                return Turn::Task(id, future, Arc::clone(&task.waker));
            }
        }
        let Some(((at, _), timer)) = self.timers.pop_first() else { return Turn::Nothing };
        if at > self.now {
            (self.now, self.steps_at_once) = (at, 0);
        }
        self.steps_at_once += 1;
        Turn::Timer(timer)
    }

    fn set_timer(&mut self, at: Micros, timer: Timer) -> TimerKey {
        self.next_id += 1;
        let key = (at.max(self.now), self.next_id);
        self.timers.insert(key, timer);
        key
    }

    fn check(&self) -> Result<(), Stuck> {
        if self.steps_at_once > STEPS_AT_ONCE_MAX {
            return Err(Stuck::Busy { at: self.now, steps: self.steps_at_once });
        }
        if self.now > self.end {
            return Err(Stuck::Late { at: self.now, waiting: self.waiting() });
        }
        Ok(())
    }

    /// Who waits, for people: the first few tasks by node and name.
    fn waiting(&self) -> String {
        let name = |task: &Task| match task.node {
            Some(node) => format!("{node}:{}", task.name),
            None => task.name.to_owned(),
        };
        let names: Vec<String> = self.tasks.values().take(40).map(name).collect();
        format!("{} tasks ({})", self.tasks.len(), names.join(", "))
    }
}

impl Executor {
    /// An executor at the beginning of time.
    pub fn new(seed: u64, schedule: Schedule) -> Self {
        let state = State {
            now: Micros::ZERO,
            end: Micros(u64::MAX),
            steps_at_once: 0,
            next_id: MAIN,
            tasks: BTreeMap::new(),
            ready: VecDeque::new(),
            is_main_ready: false,
            timers: BTreeMap::new(),
            buried: Vec::new(),
            schedule,
            rng: Rng::new(seed, "schedule", 0),
        };
        Self(Arc::new(Core { state: Mutex::new(state) }))
    }

    /// The present time.
    pub fn now(&self) -> Micros {
        lock(&self.0.state).now
    }

    /// Gives a run up that goes on past `end`.
    pub fn set_end(&self, end: Micros) {
        lock(&self.0.state).end = end;
    }

    /// Completes at `deadline`.
    pub fn sleep_until(&self, deadline: Micros) -> Sleep {
        Sleep::new(Arc::clone(&self.0), deadline)
    }

    /// Completes after `duration`.
    pub fn sleep(&self, duration: Micros) -> Sleep {
        self.sleep_until(self.now().plus(duration))
    }

    /// Calls `call` at `at`, outside of any task and any lock.
    pub fn schedule(&self, at: Micros, call: impl FnOnce() + Send + 'static) {
        lock(&self.0.state).set_timer(at, Timer::Call(Box::new(call)));
    }

    /// Starts a task that belongs to a node, or to the world.
    pub fn spawn(
        &self,
        node: Option<NodeId>,
        name: &'static str,
        future: BoxFuture<'static, ()>,
    ) -> TaskHandle {
        let id = {
            let mut state = lock(&self.0.state);
            state.next_id += 1;
            let id = state.next_id;
            let waker = Arc::new(TaskWaker { id, core: Arc::downgrade(&self.0) });
            let task = Task { name, node, future: Some(future), waker, is_ready: false };
            state.tasks.insert(id, task);
            state.make_ready(id);
            id
        };
        let core = Arc::downgrade(&self.0);
        TaskHandle::new(move || {
            if let Some(core) = core.upgrade() {
                lock(&core.state).stop(id);
            }
        })
    }

    /// Stops all tasks of a node at once, as `kill -9` does.
    pub fn stop_node(&self, node: NodeId) {
        let mut state = lock(&self.0.state);
        let of_node = |(id, task): (&u64, &Task)| (task.node == Some(node)).then_some(*id);
        let ids: Vec<u64> = state.tasks.iter().filter_map(of_node).collect();
        for id in ids {
            state.stop(id);
        }
    }

    /// How many tasks of a node there are.
    pub fn task_count(&self, node: NodeId) -> usize {
        lock(&self.0.state).tasks.values().filter(|task| task.node == Some(node)).count()
    }

    /// Runs everything until `main` completes.
    pub fn block_on<T>(&self, main: impl Future<Output = T>) -> Result<T, Stuck> {
        self.block_on_watched(main, Micros(u64::MAX), || {})
    }

    /// As [`Executor::block_on`], calling `watch` between two turns whenever `every` has passed.
    pub fn block_on_watched<T>(
        &self,
        main: impl Future<Output = T>,
        every: Micros,
        mut watch: impl FnMut(),
    ) -> Result<T, Stuck> {
        let mut main = pin!(main);
        let mut next_watch = self.now().plus(every);
        let waker = Waker::from(Arc::new(TaskWaker { id: MAIN, core: Arc::downgrade(&self.0) }));
        lock(&self.0.state).make_ready(MAIN);
        loop {
            if self.now() >= next_watch {
                watch();
                next_watch = self.now().plus(every);
            }
            match self.turn()? {
                Turn::Main => {
                    if let Poll::Ready(value) = main.as_mut().poll(&mut Context::from_waker(&waker))
                    {
                        return Ok(value);
                    }
                }
                Turn::Nothing => {
                    let state = lock(&self.0.state);
                    return Err(Stuck::Quiet { at: state.now, waiting: state.waiting() });
                }
                other => self.perform(other),
            }
        }
    }

    /// Runs everything until nothing can run and no timer is set.
    pub fn run_until_quiet(&self) -> Result<(), Stuck> {
        loop {
            match self.turn()? {
                Turn::Nothing => return Ok(()),
                turn => self.perform(turn),
            }
        }
    }

    fn turn(&self) -> Result<Turn, Stuck> {
        let buried = std::mem::take(&mut lock(&self.0.state).buried);
        drop(buried);
        let mut state = lock(&self.0.state);
        state.check()?;
        Ok(state.next_turn())
    }

    fn perform(&self, turn: Turn) {
        match turn {
            Turn::Task(id, future, waker) => self.poll(id, future, waker),
            Turn::Timer(Timer::Wake(waker)) => waker.wake(),
            Turn::Timer(Timer::Call(call)) => call(),
            Turn::Main | Turn::Nothing => {}
        }
    }

    fn poll(&self, id: u64, mut future: BoxFuture<'static, ()>, waker: Arc<TaskWaker>) {
        let waker = Waker::from(waker);
        let is_done = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut state = lock(&self.0.state);
        if is_done {
            state.tasks.remove(&id);
        } else if let Some(task) = state.tasks.get_mut(&id) {
            task.future = Some(future);
            return;
        }
        // Done, or stopped while it ran. Its destructors may call us: not under the lock.
        drop(state);
        drop(future);
    }

    /// Drops everything, so that a world that ends leaves nothing behind.
    pub fn shut_down(&self) {
        loop {
            let mut state = lock(&self.0.state);
            let tasks = std::mem::take(&mut state.tasks);
            let timers = std::mem::take(&mut state.timers);
            let buried = std::mem::take(&mut state.buried);
            state.ready.clear();
            drop(state);
            if tasks.is_empty() && timers.is_empty() && buried.is_empty() {
                return;
            }
        }
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// Starts tasks for one run of a node.
#[derive(Debug)]
pub struct SimSpawn {
    executor: Executor,
    life: Arc<Life>,
}

impl SimSpawn {
    /// Tasks will belong to the node of `life` and start only while it lasts.
    pub fn new(executor: Executor, life: Arc<Life>) -> Self {
        Self { executor, life }
    }
}

impl Spawn for SimSpawn {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        if !self.life.is_alive() {
            return TaskHandle::new(|| {});
        }
        self.executor.spawn(Some(self.life.node), name, task)
    }
}

#[cfg(test)]
mod tests;
