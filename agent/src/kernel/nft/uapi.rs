//! Numbers of the nf_tables netlink interface (`linux/netfilter/nf_tables.h`, `nfnetlink.h`).

/// Subsystem number: high octet of every message type.
pub(super) const SUBSYSTEM: u16 = 10;
/// NFPROTO_UNSPEC: in a dump, all families.
pub(super) const FAMILY_ANY: u8 = 0;
/// NFPROTO_INET: family of our table.
pub(super) const FAMILY_INET: u8 = 1;

pub(super) const BATCH_BEGIN: u16 = 0x10;
pub(super) const BATCH_END: u16 = 0x11;
pub(super) const BATCH_GENERATION: u16 = 1;

/// Message types (low octet).
pub(super) mod message {
    pub(in super::super) const NEW_TABLE: u16 = 0;
    pub(in super::super) const GET_TABLE: u16 = 1;
    pub(in super::super) const DEL_TABLE: u16 = 2;
    pub(in super::super) const NEW_CHAIN: u16 = 3;
    pub(in super::super) const GET_CHAIN: u16 = 4;
    pub(in super::super) const DEL_CHAIN: u16 = 5;
    pub(in super::super) const NEW_RULE: u16 = 6;
    pub(in super::super) const GET_RULE: u16 = 7;
    pub(in super::super) const DEL_RULE: u16 = 8;
    pub(in super::super) const NEW_SET: u16 = 9;
    pub(in super::super) const GET_SET: u16 = 10;
    pub(in super::super) const DEL_SET: u16 = 11;
    pub(in super::super) const NEW_ELEMENTS: u16 = 12;
    pub(in super::super) const GET_ELEMENTS: u16 = 13;
    pub(in super::super) const DEL_ELEMENTS: u16 = 14;
    pub(in super::super) const NEW_GENERATION: u16 = 15;
    pub(in super::super) const GET_GENERATION: u16 = 16;
}

/// Netlink header flags and control message types.
pub(super) mod netlink {
    pub(in super::super) const HEADER: usize = 16;
    pub(in super::super) const REQUEST: u16 = 0x1;
    pub(in super::super) const ACK: u16 = 0x4;
    /// In a dump: the ruleset changed while it was read.
    pub(in super::super) const DUMP_INTERRUPTED: u16 = 0x10;
    /// In an error: the offending message is not repeated.
    pub(in super::super) const CAPPED: u16 = 0x100;
    /// In an error: attributes follow.
    pub(in super::super) const ACK_ATTRIBUTES: u16 = 0x200;
    pub(in super::super) const EXCLUSIVE: u16 = 0x200;
    pub(in super::super) const DUMP: u16 = 0x300;
    pub(in super::super) const CREATE: u16 = 0x400;
    pub(in super::super) const APPEND: u16 = 0x800;

    pub(in super::super) const ERROR: u16 = 2;
    pub(in super::super) const DONE: u16 = 3;
    /// Attribute of an error: text for humans.
    pub(in super::super) const ERROR_TEXT: u16 = 1;

    pub(in super::super) const ATTRIBUTE_HEADER: usize = 4;
    pub(in super::super) const NESTED: u16 = 0x8000;
    pub(in super::super) const TYPE_MASK: u16 = 0x3fff;
}

/// Attribute number 1 of tables, chains, rules, sets and element lists alike.
pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
/// Flag of a table whose base chains are switched off.
pub(super) const TABLE_DORMANT: u32 = 1;

pub(super) const GENERATION_ID: u16 = 1;
pub(super) const GENERATION_PID: u16 = 2;
pub(super) const GENERATION_PROCESS: u16 = 3;

/// Chain attributes.
pub(super) mod chain {
    pub(in super::super) const NAME: u16 = 3;
    pub(in super::super) const HOOK: u16 = 4;
    pub(in super::super) const POLICY: u16 = 5;
    pub(in super::super) const TYPE: u16 = 7;
    pub(in super::super) const HOOK_NUMBER: u16 = 1;
    pub(in super::super) const HOOK_PRIORITY: u16 = 2;
    /// NF_DROP.
    pub(in super::super) const POLICY_DROP: u32 = 0;
    /// NF_ACCEPT.
    pub(in super::super) const POLICY_ACCEPT: u32 = 1;
}

/// Rule attributes.
pub(super) mod rule {
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const EXPRESSIONS: u16 = 4;
    pub(in super::super) const USERDATA: u16 = 7;
    /// Type of the user data item that holds the comment.
    pub(in super::super) const USERDATA_COMMENT: u8 = 0;
}

/// Set attributes and flags.
pub(super) mod set {
    pub(in super::super) const NAME: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const KEY_TYPE: u16 = 4;
    pub(in super::super) const KEY_LENGTH: u16 = 5;
    pub(in super::super) const DATA_TYPE: u16 = 6;
    pub(in super::super) const ID: u16 = 10;
    pub(in super::super) const USERDATA: u16 = 13;

    pub(in super::super) const ANONYMOUS: u32 = 1;
    pub(in super::super) const CONSTANT: u32 = 2;
    pub(in super::super) const INTERVAL: u32 = 4;
    pub(in super::super) const MAP: u32 = 8;

    /// Data type of a verdict map.
    pub(in super::super) const VERDICT_TYPE: u32 = 0xffff_ff00;
    /// Type of the user data item that tells `nft list` the byte order of keys.
    pub(in super::super) const USERDATA_KEY_BYTE_ORDER: u8 = 0;
    pub(in super::super) const BYTE_ORDER_HOST: u32 = 1;
    pub(in super::super) const BYTE_ORDER_BIG_ENDIAN: u32 = 2;
}

/// Element list and element attributes.
pub(super) mod element {
    pub(in super::super) const SET: u16 = 2;
    pub(in super::super) const LIST: u16 = 3;
    pub(in super::super) const SET_ID: u16 = 4;
    pub(in super::super) const KEY: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const INTERVAL_END: u32 = 1;
}

/// `NFTA_LIST_ELEM`: an item of any list.
pub(super) const LIST_ITEM: u16 = 1;

/// Data attributes.
pub(super) mod data {
    pub(in super::super) const VALUE: u16 = 1;
    pub(in super::super) const VERDICT: u16 = 2;
    pub(in super::super) const VERDICT_CODE: u16 = 1;
    pub(in super::super) const VERDICT_CHAIN: u16 = 2;
}

/// Verdict codes.
pub(super) mod verdict {
    pub(in super::super) const DROP: i32 = 0;
    pub(in super::super) const ACCEPT: i32 = 1;
    pub(in super::super) const CONTINUE: i32 = -1;
    pub(in super::super) const JUMP: i32 = -3;
    pub(in super::super) const GOTO: i32 = -4;
    pub(in super::super) const RETURN: i32 = -5;
}

/// Expression attributes and operands.
pub(super) mod expression {
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;

    pub(in super::super) const PAYLOAD_DREG: u16 = 1;
    pub(in super::super) const PAYLOAD_BASE: u16 = 2;
    pub(in super::super) const PAYLOAD_OFFSET: u16 = 3;
    pub(in super::super) const PAYLOAD_LENGTH: u16 = 4;
    pub(in super::super) const NETWORK_HEADER: u32 = 1;
    pub(in super::super) const TRANSPORT_HEADER: u32 = 2;

    pub(in super::super) const META_DREG: u16 = 1;
    pub(in super::super) const META_KEY: u16 = 2;
    pub(in super::super) const META_IIFNAME: u32 = 6;
    pub(in super::super) const META_NFPROTO: u32 = 15;
    pub(in super::super) const META_L4PROTO: u32 = 16;

    pub(in super::super) const CMP_SREG: u16 = 1;
    pub(in super::super) const CMP_OP: u16 = 2;
    pub(in super::super) const CMP_DATA: u16 = 3;
    pub(in super::super) const CMP_EQUAL: u32 = 0;
    pub(in super::super) const CMP_NOT_EQUAL: u32 = 1;

    pub(in super::super) const CT_DREG: u16 = 1;
    pub(in super::super) const CT_KEY: u16 = 2;
    pub(in super::super) const CT_STATE: u32 = 0;

    pub(in super::super) const BITWISE_SREG: u16 = 1;
    pub(in super::super) const BITWISE_DREG: u16 = 2;
    pub(in super::super) const BITWISE_LENGTH: u16 = 3;
    pub(in super::super) const BITWISE_MASK: u16 = 4;
    pub(in super::super) const BITWISE_XOR: u16 = 5;

    pub(in super::super) const LOOKUP_SET: u16 = 1;
    pub(in super::super) const LOOKUP_SREG: u16 = 2;
    pub(in super::super) const LOOKUP_DREG: u16 = 3;
    pub(in super::super) const LOOKUP_SET_ID: u16 = 4;
    pub(in super::super) const LOOKUP_FLAGS: u16 = 5;
    pub(in super::super) const LOOKUP_INVERT: u32 = 1;

    pub(in super::super) const IMMEDIATE_DREG: u16 = 1;
    pub(in super::super) const IMMEDIATE_DATA: u16 = 2;

    pub(in super::super) const VERDICT_REGISTER: u32 = 0;
}
