//! Which partition an account belongs to: Kafka's default partitioner, so that any producer can agree.

use crate::domain::id::{AccountId, PartitionId, WorkspaceId};

/// Returns the partition of an account: murmur2 of `workspace/account_id`, made positive, modulo the partition count.
pub fn partition_of(workspace: WorkspaceId, account: &AccountId, partition_count: u32) -> PartitionId {
    let key = format!("{workspace}/{account}");
    let positive = murmur2(key.as_bytes()) & 0x7fff_ffff;
    PartitionId(positive.checked_rem(partition_count).unwrap_or(0))
}

/// MurmurHash2 with the seed that Kafka's clients use (`org.apache.kafka.common.utils.Utils.murmur2`).
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0_u8; 4];
        last.iter_mut().zip(tail).for_each(|(to, from)| *to = *from);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn the_hash_agrees_with_kafka() {
        let check = |text: &str, want: i32| assert_eq!(murmur2(text.as_bytes()).cast_signed(), want, "{text}");
        check("21", -973_932_308);
        check("foobar", -790_332_482);
        check("a-little-bit-long-string", -985_981_536);
        check("a-little-bit-longer-string", -1_486_304_829);
        check("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971);
        check("abc", 479_470_107);
    }
}
