//! Sets and their elements: wire form of declarations, keys, ranges and verdicts, and back.

use std::collections::BTreeMap;

use policy::nft::ir::{Element, SetSpec, Type, Value, Verdict};

use super::encode::EncodeError;
use super::message::{Attributes, Buffer, text};
use super::uapi::{data, element, set, verdict};

/// Longest interface name with its NUL.
const IFNAME_LENGTH: usize = 16;
/// Bits that `nft` gives each field in the type number of a concatenation.
const TYPE_BITS: u32 = 6;

/// Type number by which `nft list` knows how to print a field.
fn type_number(field: Type) -> u32 {
    match field {
        Type::Ipv4 => 7,
        Type::Ipv6 => 8,
        Type::Proto => 12,
        Type::Port => 13,
        Type::IfName => 41,
    }
}

fn type_of_number(number: u32) -> Option<Type> {
    [Type::Ipv4, Type::Ipv6, Type::Proto, Type::Port, Type::IfName]
        .into_iter()
        .find(|t| type_number(*t) == number)
}

/// Octets of a field, without padding.
pub(super) fn width(field: Type) -> usize {
    match field {
        Type::Ipv4 => 4,
        Type::Ipv6 => 16,
        Type::Proto => 1,
        Type::Port => 2,
        Type::IfName => IFNAME_LENGTH,
    }
}

/// Octets of a field inside a key: fields of a concatenation are padded to whole registers.
fn stride(key: &[Type], field: Type) -> usize {
    if key.len() > 1 { width(field).next_multiple_of(4) } else { width(field) }
}

/// Octets of a whole key.
fn key_length(key: &[Type]) -> usize {
    key.iter().map(|f| stride(key, *f)).sum()
}

/// Attributes of a set declaration, without its table.
pub(super) fn write_declaration(buffer: &mut Buffer, name: &str, spec: &SetSpec, id: u32) {
    let mut flags = 0;
    if spec.interval {
        flags |= set::INTERVAL;
    }
    if spec.verdict_map {
        flags |= set::MAP;
    }
    let kind = spec.key.iter().fold(0u32, |n, f| (n << TYPE_BITS) | type_number(*f));
    buffer.string(set::NAME, name);
    buffer.u32(set::FLAGS, flags);
    buffer.u32(set::KEY_TYPE, kind);
    buffer.u32(set::KEY_LENGTH, u32::try_from(key_length(&spec.key)).unwrap_or(u32::MAX));
    if spec.verdict_map {
        buffer.u32(set::DATA_TYPE, set::VERDICT_TYPE);
    }
    buffer.u32(set::ID, id);
    // Without it `nft list` prints interface names byte-swapped, that is, empty.
    let order = match spec.key.as_slice() {
        [Type::IfName] => set::BYTE_ORDER_HOST,
        [_] => set::BYTE_ORDER_BIG_ENDIAN,
        _ => 0,
    };
    buffer.attribute(set::USERDATA, &userdata(set::USERDATA_KEY_BYTE_ORDER, &order.to_ne_bytes()));
}

/// One item of nft user data: type, length, value. What is too long is cut off.
pub(super) fn userdata(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    let mut item = vec![kind, length];
    item.extend_from_slice(value.get(..usize::from(length)).unwrap_or_default());
    item
}

/// Declaration as read back; `None` when it is nothing that we would make.
pub(super) fn read_declaration(attributes: Attributes<'_>) -> Option<SetSpec> {
    let flags = attributes.u32(set::FLAGS).unwrap_or(0);
    if flags & !(set::INTERVAL | set::MAP) != 0 {
        return None;
    }
    let verdict_map = flags & set::MAP != 0;
    if verdict_map && attributes.u32(set::DATA_TYPE) != Some(set::VERDICT_TYPE) {
        return None;
    }
    let mut number = attributes.u32(set::KEY_TYPE)?;
    let mut key = Vec::new();
    while number != 0 {
        key.insert(0, type_of_number(number & ((1 << TYPE_BITS) - 1))?);
        number >>= TYPE_BITS;
    }
    let length = usize::try_from(attributes.u32(set::KEY_LENGTH)?).ok()?;
    (length == key_length(&key)).then_some(SetSpec {
        key,
        interval: flags & set::INTERVAL != 0,
        verdict_map,
    })
}

/// Writes one element (two list items for a range).
pub(super) fn write_element(
    buffer: &mut Buffer,
    spec: &SetSpec,
    element: &Element,
    target: Option<&Verdict>,
) -> Result<(), EncodeError> {
    match (element, spec.key.as_slice()) {
        (Element::Range(first, last), [field]) if spec.interval => {
            write_range(buffer, *field, first, last, target)
        }
        (Element::Key(values), [field]) if spec.interval => match values.as_slice() {
            [value] => write_range(buffer, *field, value, value, target),
            _ => Err(EncodeError::KeyMismatch),
        },
        (Element::Key(values), _) => write_item(buffer, &encode_key(&spec.key, values)?, 0, target),
        (Element::Range(..), _) => Err(EncodeError::KeyMismatch),
    }
}

/// A range is its first value and, flagged as end, the first value after it; a range up to the
/// greatest value has no end.
fn write_range(
    buffer: &mut Buffer,
    field: Type,
    first: &Value,
    last: &Value,
    target: Option<&Verdict>,
) -> Result<(), EncodeError> {
    let start = encode_value(field, first)?;
    let mut end = encode_value(field, last)?;
    if start > end {
        return Err(EncodeError::EmptyRange);
    }
    write_item(buffer, &start, 0, target)?;
    if increment(&mut end) {
        write_item(buffer, &end, element::INTERVAL_END, None)?;
    }
    Ok(())
}

fn write_item(
    buffer: &mut Buffer,
    key: &[u8],
    flags: u32,
    target: Option<&Verdict>,
) -> Result<(), EncodeError> {
    let item = buffer.open_nest(super::uapi::LIST_ITEM);
    if flags != 0 {
        buffer.u32(element::FLAGS, flags);
    }
    buffer.nest(element::KEY, |b| b.attribute(data::VALUE, key));
    if let Some(target) = target {
        let at = buffer.open_nest(element::DATA);
        write_verdict(buffer, target)?;
        buffer.close_nest(at);
    }
    buffer.close_nest(item);
    Ok(())
}

/// Adds one to a big-endian number; false if it was the greatest.
fn increment(number: &mut [u8]) -> bool {
    for octet in number.iter_mut().rev() {
        *octet = octet.wrapping_add(1);
        if *octet != 0 {
            return true;
        }
    }
    false
}

fn decrement(number: &mut [u8]) {
    for octet in number.iter_mut().rev() {
        *octet = octet.wrapping_sub(1);
        if *octet != u8::MAX {
            return;
        }
    }
}

/// `NFTA_DATA_VERDICT` of a rule or map element.
pub(super) fn write_verdict(buffer: &mut Buffer, target: &Verdict) -> Result<(), EncodeError> {
    let (code, chain) = match target {
        Verdict::Accept => (verdict::ACCEPT, None),
        Verdict::Drop => (verdict::DROP, None),
        Verdict::Return => (verdict::RETURN, None),
        Verdict::Continue => (verdict::CONTINUE, None),
        Verdict::Jump(chain) => (verdict::JUMP, Some(chain)),
        Verdict::Goto(chain) => (verdict::GOTO, Some(chain)),
        Verdict::Map { .. } | Verdict::Masquerade => return Err(EncodeError::NestedMap),
    };
    buffer.nest(data::VERDICT, |b| {
        b.attribute(data::VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            b.string(data::VERDICT_CHAIN, chain);
        }
    });
    Ok(())
}

fn read_verdict(attributes: Attributes<'_>) -> Option<Verdict> {
    let attributes = attributes.nest(data::VERDICT);
    let code = i32::from_be_bytes(attributes.find(data::VERDICT_CODE)?.try_into().ok()?);
    let chain = attributes.string(data::VERDICT_CHAIN).map(str::to_owned);
    match (code, chain) {
        (verdict::ACCEPT, None) => Some(Verdict::Accept),
        (verdict::DROP, None) => Some(Verdict::Drop),
        (verdict::RETURN, None) => Some(Verdict::Return),
        (verdict::CONTINUE, None) => Some(Verdict::Continue),
        (verdict::JUMP, Some(chain)) => Some(Verdict::Jump(chain)),
        (verdict::GOTO, Some(chain)) => Some(Verdict::Goto(chain)),
        _ => None,
    }
}

fn encode_key(key: &[Type], values: &[Value]) -> Result<Vec<u8>, EncodeError> {
    if key.len() != values.len() {
        return Err(EncodeError::KeyMismatch);
    }
    let mut octets = Vec::with_capacity(key_length(key));
    for (field, value) in key.iter().zip(values) {
        let end = octets.len() + stride(key, *field);
        octets.extend(encode_value(*field, value)?);
        octets.resize(end, 0);
    }
    Ok(octets)
}

fn encode_value(field: Type, value: &Value) -> Result<Vec<u8>, EncodeError> {
    match (field, value) {
        (Type::Ipv4, Value::Ipv4(a)) => Ok(a.octets().to_vec()),
        (Type::Ipv6, Value::Ipv6(a)) => Ok(a.octets().to_vec()),
        (Type::Proto, Value::Proto(p)) => Ok(vec![*p]),
        (Type::Port, Value::Port(p)) => Ok(p.to_be_bytes().to_vec()),
        (Type::IfName, Value::IfName(name)) if name.len() < IFNAME_LENGTH => {
            let mut octets = name.as_bytes().to_vec();
            octets.resize(IFNAME_LENGTH, 0);
            Ok(octets)
        }
        _ => Err(EncodeError::KeyMismatch),
    }
}

fn decode_value(field: Type, octets: &[u8]) -> Option<Value> {
    match field {
        Type::Ipv4 => <[u8; 4]>::try_from(octets).ok().map(|a| Value::Ipv4(a.into())),
        Type::Ipv6 => <[u8; 16]>::try_from(octets).ok().map(|a| Value::Ipv6(a.into())),
        Type::Proto => match octets {
            [p] => Some(Value::Proto(*p)),
            _ => None,
        },
        Type::Port => <[u8; 2]>::try_from(octets).ok().map(|p| Value::Port(u16::from_be_bytes(p))),
        Type::IfName => text(octets).map(|name| Value::IfName(name.to_owned())),
    }
}

fn decode_key(key: &[Type], octets: &[u8]) -> Option<Vec<Value>> {
    let mut rest = octets;
    let mut values = Vec::with_capacity(key.len());
    for field in key {
        let (head, tail) = rest.split_at_checked(stride(key, *field))?;
        values.push(decode_value(*field, head.get(..width(*field))?)?);
        rest = tail;
    }
    rest.is_empty().then_some(values)
}

/// Elements of one set as they come in dumps, in any order and possibly repeated.
#[derive(Debug, Default)]
pub(super) struct Dumped {
    /// By key and whether it ends an interval.
    items: BTreeMap<(Vec<u8>, bool), Option<Verdict>>,
    /// Something that we would never write.
    foreign: bool,
}

impl Dumped {
    /// Takes in one item of an element list.
    pub(super) fn add(&mut self, item: Attributes<'_>, verdict_map: bool) {
        let end = item.u32(element::FLAGS).unwrap_or(0) & element::INTERVAL_END != 0;
        let Some(key) = item.nest(element::KEY).find(data::VALUE) else {
            self.foreign = true;
            return;
        };
        let target =
            if verdict_map && !end { read_verdict(item.nest(element::DATA)) } else { None };
        self.foreign |= verdict_map && !end && target.is_none();
        self.items.insert((key.to_vec(), end), target);
    }

    /// Keys as octets, for anonymous sets.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.items.keys().map(|(key, _)| key.as_slice())
    }

    /// The content as the compiler would have written it; `None` if it never would have.
    pub(super) fn decode(&self, spec: &SetSpec) -> Option<BTreeMap<Element, Option<Verdict>>> {
        if self.foreign {
            return None;
        }
        match spec.key.as_slice() {
            [field] if spec.interval => self.decode_ranges(*field),
            key => self
                .items
                .iter()
                .map(|((octets, _), v)| Some((Element::Key(decode_key(key, octets)?), v.clone())))
                .collect(),
        }
    }

    fn decode_ranges(&self, field: Type) -> Option<BTreeMap<Element, Option<Verdict>>> {
        let mut ranges = BTreeMap::new();
        let mut items = self.items.iter().peekable();
        while let Some(((first, end), target)) = items.next() {
            // An end without a start is how nft marks "nothing from zero on": no element.
            if *end {
                continue;
            }
            // At equal keys the end of one range sorts after the start of the next, so look at
            // whatever boundary has a greater key.
            while items.next_if(|((key, _), _)| key == first).is_some() {}
            let last = match items.peek() {
                Some(((boundary, _), _)) => {
                    let mut last = boundary.clone();
                    decrement(&mut last);
                    last
                }
                None => vec![u8::MAX; width(field)],
            };
            let range = Element::Range(decode_value(field, first)?, decode_value(field, &last)?);
            ranges.insert(range, target.clone());
        }
        Some(ranges)
    }
}
