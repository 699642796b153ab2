// SPDX-License-Identifier: Apache-2.0

/// Finds items by a hash: linear hashing with chains. It grows by one bucket at a time, so no
/// insertion takes long, and it is made of blocks, so a copy is cheap.
///
/// Items are small indexes; the caller keeps their hashes. Items with equal hashes may be in it.
///
/// - Complexity: O(1) on average for all operations.
/// - Source: W. Litwin, Linear hashing, 1980.
package struct HashIndex: Sendable {
  private var buckets = Blocks<UInt32>()
  /// The next item of the same bucket, by item.
  private var chains = Blocks<UInt32>()
  package private(set) var count = 0

  private static let none = UInt32.max

  package init() {}

  private func bucket(of hash: UInt64) -> Int {
    let bits = Int.bitWidth - (buckets.count - 1).leadingZeroBitCount
    let place = Int(truncatingIfNeeded: hash & (1 << UInt64(bits) - 1))
    // Buckets of the upper half that are not there yet are still part of the lower.
    return place < buckets.count ? place : place & (1 << (bits - 1) - 1)
  }

  /// The first item of a hash's bucket for which `matches` says so.
  package func first(_ hash: UInt64, where matches: (UInt32) -> Bool) -> UInt32? {
    guard buckets.count > 0 else { return nil }
    var item = buckets[bucket(of: hash)]
    while item != Self.none {
      if matches(item) { return item }
      item = chains[Int(item)]
    }
    return nil
  }

  /// - Parameter hashOf: the hash of an item that is in the index.
  package mutating func insert(_ item: UInt32, hash: UInt64, hashOf: (UInt32) -> UInt64) {
    while chains.count <= Int(item) { chains.append(Self.none) }
    if buckets.count == 0 { buckets.append(Self.none) }
    push(item, to: bucket(of: hash))
    count += 1
    if count > buckets.count { split(hashOf) }
  }

  package mutating func remove(_ item: UInt32, hash: UInt64) {
    let place = bucket(of: hash)
    var before = Self.none
    var next = buckets[place]
    while next != item {
      guard next != Self.none else { return }
      (before, next) = (next, chains[Int(next)])
    }
    if before == Self.none {
      buckets[place] = chains[Int(item)]
    } else {
      chains[Int(before)] = chains[Int(item)]
    }
    count -= 1
  }

  private mutating func push(_ item: UInt32, to place: Int) {
    chains[Int(item)] = buckets[place]
    buckets[place] = item
  }

  /// Adds a bucket, and moves to it what belongs there.
  private mutating func split(_ hashOf: (UInt32) -> UInt64) {
    let fresh = buckets.count
    buckets.append(Self.none)
    let bits = Int.bitWidth - fresh.leadingZeroBitCount
    let old = fresh & (1 << (bits - 1) - 1)
    var item = buckets[old]
    buckets[old] = Self.none
    while item != Self.none {
      let next = chains[Int(item)]
      push(item, to: bucket(of: hashOf(item)))
      item = next
    }
  }
}
