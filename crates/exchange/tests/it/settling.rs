//! What both nodes do after the end: recover, meet, and offer what waits (Rule E14).

use commons_exchange::SequenceRange;
use commons_exchange::entry::{Side, outbox_put, outbox_remove};
use commons_exchange::message::WireRefusal;
use commons_exchange::settle::Held;
use commons_record::envelope::Verified;
use commons_record::settlement::{Receipt, Scope, Voucher};
use commons_record::{Hash, PeerId};

use crate::disk::Disk;
use crate::sample;
use crate::world::World;

impl World {
    /// Both nodes are restarted on their disks and meet. `meet_first`: before the provider's
    /// grace time is over.
    pub(crate) fn settle(&mut self, meet_first: bool) {
        assert!(self.is_over(), "settling begins when both sides are over");
        self.server_disk().is_full = false;
        self.asker_disk().is_full = false;
        self.recover_requester();
        if meet_first {
            self.offer_vouchers();
        }
        self.close_provider();
        for _ in 0..2 {
            self.offer_vouchers();
            self.offer_receipts();
        }
    }

    /// A requester that starts again owes its last voucher.
    fn recover_requester(&mut self) {
        let provider = self.provider();
        let entries = self.disk_of_asker().entries().into_iter();
        let owed = entries.filter(|it| it.side == Side::Requester && it.receipt.is_none());
        let owed = owed.filter(|it| it.scope == Scope::Mesh).filter_map(|it| it.voucher);
        let changes = owed.map(|voucher| outbox_put(&provider, &voucher)).collect();
        self.asker_disk().commit(changes).expect("there is room");
    }

    /// A provider closes what is open.
    pub(crate) fn close_provider(&mut self) {
        let order = self.order_id();
        let Some(mut held) = self.disk_of_server().held(Side::Provider, &order) else { return };
        let amount = held.voucher.as_ref().map(|it| it.body().amount).unwrap_or_default();
        let last = self.disk_of_server().pair(&self.provider(), &self.requester());
        let pair = last.next(amount).expect("amounts are small here");
        let standing = self.server.standing.clone();
        let closed = held.close(&standing, &mut SequenceRange::new(900, 901), pair);
        if let Some((_, changes)) = closed {
            self.server_disk().commit(changes).expect("there is room");
        }
        crate::invariant::hold_on_disk(self);
    }

    /// The requester offers what waits for the provider.
    pub(crate) fn offer_vouchers(&mut self) {
        let (provider, order) = (self.provider(), self.order_id());
        for id in self.disk_of_asker().outbox(&provider) {
            let record = self.disk_of_asker().bytes(&id).expect("what waits is on disk").clone();
            // Either answer ends the offering.
            let _ = take_voucher(self.server_disk(), &record);
            self.asker_disk().commit(vec![outbox_remove(&provider, &id)]).expect("there is room");
            let open = self.disk_of_server().held(Side::Provider, &order);
            if open.is_some_and(|held| held.is_open()) {
                self.close_provider();
            }
        }
        crate::invariant::hold_on_disk(self);
    }

    /// The provider offers what waits for the requester.
    pub(crate) fn offer_receipts(&mut self) {
        let (provider, requester) = (self.provider(), self.requester());
        for id in self.disk_of_server().outbox(&requester) {
            let record = self.disk_of_server().bytes(&id).expect("what waits is on disk").clone();
            take_receipt(self.asker_disk(), provider, &record)
                .unwrap_or_else(|refusal| panic!("an honest receipt is refused: {refusal}"));
            self.server_disk().commit(vec![outbox_remove(&requester, &id)]).expect("room");
        }
        crate::invariant::hold_on_disk(self);
    }
}

fn take_voucher(disk: &mut Disk, record: &[u8]) -> Result<(), WireRefusal> {
    let (side, order) = Held::order_of(record)?;
    assert_eq!(side, Side::Provider);
    let mut held = disk.held(side, &order).expect("the order is known here");
    let changes = held.take_voucher(sample::genesis().id(), record)?;
    disk.commit(changes).expect("there is room");
    Ok(())
}

fn take_receipt(disk: &mut Disk, from: PeerId, record: &[u8]) -> Result<(), WireRefusal> {
    let (side, order) = Held::order_of(record)?;
    assert_eq!(side, Side::Requester);
    let mut held = disk.held(side, &order).expect("the order is known here");
    assert_eq!(held.entry.counterparty, from);
    let named = Held::voucher_named_by(record).and_then(|id| disk.find::<Voucher>(&id));
    let changes = held.take_receipt(sample::genesis().id(), record, named.as_ref())?;
    disk.commit(changes).expect("there is room");
    Ok(())
}

/// After both have met again there is one receipt, both hold it, and it claims what arrived.
pub(crate) fn check_agreement(world: &World) {
    let order: Hash = world.order_id();
    let served = world.disk_of_server().held(Side::Provider, &order);
    let asked = world.disk_of_asker().held(Side::Requester, &order);
    let receipt = served.as_ref().and_then(|held| held.receipt.clone());
    assert_eq!(served.is_some(), receipt.is_some(), "Rule E13: an exchange stays open");
    let known = asked.as_ref().and_then(|held| held.receipt.clone());
    // With oneself nothing is offered: after a crash the asking side may not have it.
    if !world.setup.is_local || known.is_some() {
        let ids = [&receipt, &known].map(|it| it.as_ref().map(Verified::id));
        assert_eq!(ids[0], ids[1], "Rule E14: the sides hold different receipts");
    }
    for held in [served, asked].into_iter().flatten() {
        for is_opened in [false, true] {
            let Some(evidence) = held.evidence(&sample::genesis(), is_opened) else { continue };
            let checked = evidence.verify();
            let checked = checked.unwrap_or_else(|error| panic!("{:?}: {error}", held.entry.side));
            assert_eq!(Some(checked.receipt.id()), receipt.as_ref().map(Verified::id));
        }
    }
    check_claim(world, receipt.map(Verified::into_body));
    assert!(world.disk_of_server().outbox(&world.requester()).is_empty(), "Rule E14");
    assert!(world.disk_of_asker().outbox(&world.provider()).is_empty(), "Rule E14");
}

fn check_claim(world: &World, receipt: Option<Receipt>) {
    let Some(receipt) = receipt else { return };
    let received = world.asker.received.len();
    let claimed = usize::try_from(receipt.usage.completion_tokens).expect("small");
    assert!(claimed <= received, "the receipt claims {claimed} tokens, {received} arrived");
    let vouched = world.disk_of_asker().all::<Voucher>();
    let vouched = vouched.iter().map(|it| it.body().amount).max().unwrap_or_default();
    assert!(receipt.amount <= vouched, "Rule E11: more is claimed than was ever signed for");
}
