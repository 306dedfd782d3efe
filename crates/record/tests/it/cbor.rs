//! Just enough CBOR to write what a strict decoder must refuse.

type Entries = Vec<(Value, Value)>;

/// A value with everything that can be written in more than one way still open.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Major types 0 and 1: the argument as it is in the head.
    Integer {
        is_negative: bool,
        argument: u64,
    },
    Bytes(Vec<u8>),
    Text(Vec<u8>),
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// `false`, `true`, `null`.
    Simple(u8),
    /// Bytes that stand where a value should: how the wrong ways are written.
    Raw(Vec<u8>),
}

/// Reads canonical bytes. These are our own, so whatever is unexpected is a bug in the test.
pub(crate) fn parse(bytes: &[u8]) -> Value {
    let mut rest = bytes;
    let value = parse_one(&mut rest);
    assert!(rest.is_empty(), "trailing bytes");
    value
}

fn take<'a>(rest: &mut &'a [u8], count: u64) -> &'a [u8] {
    let (taken, left) = rest.split_at(usize::try_from(count).expect("a small count"));
    *rest = left;
    taken
}

fn parse_one(rest: &mut &[u8]) -> Value {
    let head = take(rest, 1)[0];
    let argument = match head & 0x1f {
        small @ 0..24 => u64::from(small),
        size @ 24..28 => {
            let bytes = take(rest, 1 << (size - 24));
            bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        }
        other => panic!("argument {other}"),
    };
    match head >> 5 {
        0 => Value::Integer { is_negative: false, argument },
        1 => Value::Integer { is_negative: true, argument },
        2 => Value::Bytes(take(rest, argument).to_vec()),
        3 => Value::Text(take(rest, argument).to_vec()),
        4 => Value::Array((0..argument).map(|_| parse_one(rest)).collect()),
        5 => Value::Map((0..argument).map(|_| (parse_one(rest), parse_one(rest))).collect()),
        7 => Value::Simple(head),
        other => panic!("major type {other}"),
    }
}

impl Value {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let own = |values: &[Value]| values.iter().flat_map(Self::encode).collect::<Vec<_>>();
        match self {
            Self::Integer { is_negative, argument } => head(u8::from(*is_negative), *argument),
            Self::Bytes(bytes) => [head(2, bytes.len() as u64), bytes.clone()].concat(),
            Self::Text(bytes) => [head(3, bytes.len() as u64), bytes.clone()].concat(),
            Self::Array(values) => [head(4, values.len() as u64), own(values)].concat(),
            Self::Map(entries) => [head(5, entries.len() as u64), map_content(entries)].concat(),
            Self::Simple(byte) => vec![*byte],
            Self::Raw(bytes) => bytes.clone(),
        }
    }

    /// Every value that differs from this one in a single place, with a name for how.
    pub(crate) fn mutations(&self) -> Vec<(String, Value)> {
        let mut found = self.own_mutations();
        match self {
            Self::Array(values) => {
                for (at, value) in values.iter().enumerate() {
                    for (how, changed) in value.mutations() {
                        let mut values = values.clone();
                        values[at] = changed;
                        found.push((format!("[{at}]: {how}"), Self::Array(values)));
                    }
                }
            }
            Self::Map(entries) => {
                for (at, (key, value)) in entries.iter().enumerate() {
                    let name = String::from_utf8_lossy(&key.encode()[1..]).into_owned();
                    let keys =
                        key.own_mutations().into_iter().map(|(how, it)| (how, it, value.clone()));
                    let values =
                        value.mutations().into_iter().map(|(how, it)| (how, key.clone(), it));
                    for (how, key, value) in keys.chain(values) {
                        let mut entries = entries.clone();
                        entries[at] = (key, value);
                        found.push((format!("{name}: {how}"), Self::Map(entries)));
                    }
                }
            }
            _ => {}
        }
        found
    }

    /// The ways to write this very value, or one that a lenient reader takes for it, wrongly.
    fn own_mutations(&self) -> Vec<(String, Value)> {
        let plain = self.encode();
        let mut found = vec![
            ("in tag 42", Self::Raw([&[0xd8, 42], plain.as_slice()].concat())),
            (
                "in tag 55799, which says that it is CBOR",
                Self::Raw([&[0xd9, 0xd9, 0xf7], plain.as_slice()].concat()),
            ),
        ];
        match self {
            Self::Integer { is_negative, argument } => {
                let major = u8::from(*is_negative);
                found.extend(
                    longer_heads(major, *argument).map(|head| ("not minimal", Self::Raw(head))),
                );
                for (how, bytes) in floats(*is_negative, *argument) {
                    found.push((how, Self::Raw(bytes)));
                }
                let big = [&[0xc2 | major, 0x48], argument.to_be_bytes().as_slice()].concat();
                found.push(("as a big number", Self::Raw(big)));
            }
            Self::Bytes(bytes) => found.extend(other_strings(2, bytes)),
            Self::Text(bytes) => found.extend(other_strings(3, bytes)),
            Self::Array(values) => {
                let content = values.iter().flat_map(Self::encode).collect::<Vec<_>>();
                found.extend(other_containers(4, values.len() as u64, &content));
            }
            Self::Map(entries) => {
                let content = map_content(entries);
                found.extend(other_containers(5, entries.len() as u64, &content));
                found.extend(other_maps(entries));
            }
            Self::Simple(byte) => {
                found.push(("as undefined", Self::Raw(vec![0xf7])));
                found.push(("as a simple value of two bytes", Self::Raw(vec![0xf8, *byte & 0x1f])));
                found.push(("as an empty list", Self::Raw(vec![0x80])));
            }
            Self::Raw(_) => {}
        }
        found.into_iter().map(|(how, value)| (how.to_owned(), value)).collect()
    }
}

fn map_content(entries: &[(Value, Value)]) -> Vec<u8> {
    entries.iter().flat_map(|(key, value)| [key.encode(), value.encode()].concat()).collect()
}

/// The shortest head.
fn head(major: u8, argument: u64) -> Vec<u8> {
    match u8::try_from(argument) {
        Ok(small) if small < 24 => vec![major << 5 | small],
        _ => wide_head(major, argument, shortest(argument)),
    }
}

/// The fewest bytes that hold the argument, as a power of two.
fn shortest(argument: u64) -> u32 {
    match argument {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    }
}

/// Every head that holds the argument and is not the shortest.
fn longer_heads(major: u8, argument: u64) -> impl Iterator<Item = Vec<u8>> {
    let first = shortest(argument) + u32::from(argument >= 24);
    (first..4).map(move |size| wide_head(major, argument, size))
}

fn wide_head(major: u8, argument: u64, size: u32) -> Vec<u8> {
    let bytes = argument.to_be_bytes();
    let kept = &bytes[8 - (1 << size)..];
    let size = u8::try_from(size).expect("0 to 3");
    [&[(major << 5) | (24 + size)], kept].concat()
}

#[expect(clippy::cast_precision_loss, reason = "a float near the integer is what is wanted")]
fn floats(is_negative: bool, argument: u64) -> [(&'static str, Vec<u8>); 2] {
    let number = if is_negative { -1.0 - argument as f64 } else { argument as f64 };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float near the integer is what is wanted"
    )]
    let single = (number as f32).to_be_bytes();
    [
        ("as a float", [&[0xfb], number.to_be_bytes().as_slice()].concat()),
        ("as a short float", [&[0xfa], single.as_slice()].concat()),
    ]
}

fn other_strings(major: u8, bytes: &[u8]) -> Vec<(&'static str, Value)> {
    let size = bytes.len() as u64;
    let chunk = [head(major, size), bytes.to_vec()].concat();
    let indefinite = [&[major << 5 | 31], chunk.as_slice(), &[0xff]].concat();
    let other_major = [head(5 - major, size), bytes.to_vec()].concat();
    let longer = longer_heads(major, size);
    let longer =
        longer.map(|head| ("with a long length", Value::Raw([head, bytes.to_vec()].concat())));
    let as_list =
        bytes.iter().map(|byte| Value::Integer { is_negative: false, argument: u64::from(*byte) });
    let others = [
        ("of indefinite length", Value::Raw(indefinite)),
        ("as the other kind of string", Value::Raw(other_major)),
        ("as a list of numbers", Value::Raw(Value::Array(as_list.collect()).encode())),
    ];
    longer.chain(others).collect()
}

fn other_containers(major: u8, count: u64, content: &[u8]) -> Vec<(&'static str, Value)> {
    let indefinite = [&[major << 5 | 31], content, &[0xff]].concat();
    let longer = longer_heads(major, count);
    let longer = longer.map(|head| ("with a long count", Value::Raw([&head, content].concat())));
    let lying = [head(major, count + 1), content.to_vec()].concat();
    let others = [
        ("of indefinite length", Value::Raw(indefinite)),
        ("that says it has one more", Value::Raw(lying)),
    ];
    longer.chain(others).collect()
}

fn other_maps(entries: &[(Value, Value)]) -> Vec<(&'static str, Value)> {
    let mut found = Vec::new();
    for at in 0..entries.len() {
        let with = |change: &dyn Fn(&mut Entries)| {
            let mut entries = entries.to_vec();
            change(&mut entries);
            Value::Map(entries)
        };
        found.push(("without a field", with(&|it| drop(it.remove(at)))));
        found.push(("with a field twice", with(&|it| it.insert(at, it[at].clone()))));
        if at > 0 {
            found.push(("with fields out of order", with(&|it| it.swap(at - 1, at))));
        }
    }
    for name in ["a", "zzzzzzzzzzzzzzzzzzzzzzzzzzzz"] {
        let mut entries = entries.to_vec();
        let field = (Value::Text(name.into()), Value::Simple(0xf6));
        let at = if name == "a" { 0 } else { entries.len() };
        entries.insert(at, field);
        found.push(("with a field that nobody knows", Value::Map(entries)));
    }
    found
}
