// SPDX-License-Identifier: Apache-2.0

/// A set of LSNs: a bit for each, in words of 64 neighbours.
///
/// - Complexity: some bits for each member where they are dense, as in a log they are; at worst two
///   words for each.
struct LSNSet {
  private var words: [UInt64: UInt64] = [:]

  /// - Returns: whether it was not in the set before.
  @discardableResult
  mutating func insert(_ lsn: UInt64) -> Bool {
    let bit: UInt64 = 1 << (lsn & 63)
    let old = words[lsn >> 6, default: 0]
    words[lsn >> 6] = old | bit
    return old & bit == 0
  }

  func contains(_ lsn: UInt64) -> Bool { (words[lsn >> 6] ?? 0) & 1 << (lsn & 63) != 0 }
}
