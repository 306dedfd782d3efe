//! Fuzz targets: no bytes crash a decoder of messages or of stored entries, and what decodes has
//! one encoding.

use commons_exchange::entry::Entry;
use commons_exchange::message::{
    LoadAnswer, LoadQuestion, Message, Offer, OfferAnswer, ToProvider, ToRequester,
};
use commons_exchange::settle::Held;
use commons_record::codec;

fn check<M: Message>(bytes: &[u8]) {
    if let Ok(message) = M::from_bytes(bytes) {
        assert_eq!(message.to_bytes(), bytes);
    }
}

macro_rules! targets {
    ($($name:ident: $message:ty),* $(,)?) => {$(
        #[test]
        fn $name() {
            bolero::check!().for_each(|bytes: &[u8]| check::<$message>(bytes));
        }
    )*};
}

targets! {
    to_provider: ToProvider,
    to_requester: ToRequester,
    load_question: LoadQuestion,
    load_answer: LoadAnswer,
    offer: Offer,
    offer_answer: OfferAnswer,
}

#[test]
fn entry() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(entry) = Entry::decode(bytes) {
            assert_eq!(codec::encode(&entry), bytes);
        }
    });
}

#[test]
fn offered_record() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let _ = Held::order_of(bytes);
        let _ = Held::voucher_named_by(bytes);
    });
}
