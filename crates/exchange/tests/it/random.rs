//! Random schedules: whatever is delayed, cut, cancelled, full or crashed, the rules hold.

use commons_exchange::requester;
use commons_record::Millis;
use commons_record::settlement::EndReason;
use proptest::prelude::*;

use crate::engine::{Script, ScriptEnd};
use crate::invariant::late_inputs_are_harmless;
use crate::settling::check_agreement;
use crate::world::{Setup, World};

/// What the world does next.
#[derive(Debug, Clone, Copy)]
enum Action {
    DeliverUp,
    DeliverDown,
    Engine,
    Everything,
    Wait(u64),
    /// Early, late or repeated: both machines re-check.
    FireTimers,
    Cancel,
    Cut {
        up: usize,
        down: usize,
    },
    FillServer(bool),
    FillAsker(bool),
    CrashServer,
    CrashAsker,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let normal = prop_oneof![
        10 => Just(Action::DeliverUp),
        14 => Just(Action::DeliverDown),
        14 => Just(Action::Engine),
        6 => Just(Action::Everything),
        4 => (0..1_500_u64).prop_map(Action::Wait),
        2 => Just(Action::FireTimers),
    ];
    let fault = prop_oneof![
        4 => Just(Action::Cancel),
        2 => (1_000..20_000_u64).prop_map(Action::Wait),
        1 => Just(Action::Wait(70_000)),
        2 => (0..4_usize, 0..4_usize).prop_map(|(up, down)| Action::Cut { up, down }),
        3 => any::<bool>().prop_map(Action::FillServer),
        3 => any::<bool>().prop_map(Action::FillAsker),
        2 => Just(Action::CrashServer),
        2 => Just(Action::CrashAsker),
    ];
    // One in twenty-five is a fault: about half of all runs come to the end of an answer.
    prop::collection::vec(prop_oneof![24 => normal, 1 => fault], 0..120)
}

fn setups() -> impl Strategy<Value = Setup> {
    let end = prop_oneof![
        6 => Just(ScriptEnd::Finish(EndReason::Stop)),
        2 => Just(ScriptEnd::Finish(EndReason::Length)),
        1 => Just(ScriptEnd::Fail),
        1 => Just(ScriptEnd::Vanish),
        1 => Just(ScriptEnd::Refuse),
    ];
    let script = (1..20_u32, 0..30_u32, 0..50_u32, end).prop_map(
        |(prompt_tokens, cached_tokens, tokens, end)| Script {
            prompt_tokens,
            cached_tokens,
            tokens,
            end,
        },
    );
    let seed = prop_oneof![Just(None), any::<i64>().prop_map(Some)];
    let is_local = prop_oneof![4 => Just(false), 1 => Just(true)];
    (script, seed, 1..9_u32, is_local).prop_map(|(script, seed, voucher_step, is_local)| Setup {
        script,
        seed,
        voucher_step,
        is_local,
    })
}

fn perform(world: &mut World, action: Action) {
    match action {
        Action::DeliverUp => _ = world.deliver_up(),
        Action::DeliverDown => _ = world.deliver_down(),
        Action::Engine => _ = world.run_engine(),
        Action::Everything => world.settle_down(),
        Action::Wait(duration) => world.wait(Millis(duration)),
        Action::FireTimers => world.fire_timers(),
        Action::Cancel => world.step_asker(requester::Input::Cancel),
        Action::Cut { up, down } => world.cut(up, down),
        Action::FillServer(is_full) => world.server_disk().is_full = is_full,
        Action::FillAsker(is_full) => world.asker_disk().is_full = is_full,
        Action::CrashServer => world.crash_server(),
        Action::CrashAsker => world.crash_asker(),
    }
}

/// Half as many as usual, because each run is a whole exchange with its signatures; the usual
/// variable asks for more.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases / 2, ..usual }
}

proptest! {
    #![proptest_config(config())]

    /// Rules E1 to E14: both sides end whatever happens, no more is claimed than was delivered,
    /// and once they meet again they hold one receipt.
    #[test]
    fn both_sides_end_and_agree(
        setup in setups(),
        actions in actions(),
        meet_first in any::<bool>(),
    ) {
        let mut world = World::begin(setup);
        for action in actions {
            perform(&mut world, action);
        }
        world.run_to_the_end();
        late_inputs_are_harmless(&mut world);
        world.settle(meet_first);
        check_agreement(&world);
    }

    /// Without a fault every answer is complete, acknowledged and settled at once, in any order
    /// of delivery. Rule E11.
    #[test]
    fn without_a_fault_all_of_it_is_settled_at_once(
        tokens in 0..48_u32,
        voucher_step in 1..9_u32,
        seed in prop_oneof![Just(None), any::<i64>().prop_map(Some)],
        is_local in any::<bool>(),
        picks in prop::collection::vec(0..3_u8, 0..200),
    ) {
        let script = Script::answer(tokens);
        let mut world = World::begin(Setup { script, seed, voucher_step, is_local });
        for pick in picks {
            let _ = match pick {
                0 => world.deliver_up(),
                1 => world.deliver_down(),
                _ => world.run_engine(),
            };
        }
        world.settle_down();
        prop_assert!(world.is_over());
        prop_assert!(world.now == crate::world::START, "it waited for a timer");
        crate::settled::check(&world, tokens);
        check_agreement(&world);
    }
}
