// SPDX-License-Identifier: Apache-2.0

/// A min-heap whose items can be found again, so that a timer can be moved or removed. Nodes have
/// four children: half the levels of two, and fewer places in memory that a change touches.
///
/// Items are small indexes. Where each stands is kept outside, in `places` by item, so that several
/// heaps can share it as long as an item is in one of them at a time.
///
/// - Complexity: O(log n) for all changes, O(1) for the least.
package struct IndexedHeap: Sendable {
  /// The key in halves: 12 bytes, without padding.
  package struct Node: Sendable {
    private let high: UInt32
    private let low: UInt32
    package let item: UInt32

    init(key: UInt64, item: UInt32) {
      (high, low) = (UInt32(key >> 32), UInt32(truncatingIfNeeded: key))
      self.item = item
    }

    /// Least first; ties by item.
    package var key: UInt64 { UInt64(high) << 32 | UInt64(low) }
  }

  package private(set) var nodes = Blocks<Node>()

  /// In `places`: the item is in no heap.
  package static let absent = UInt32.max

  package init() {}

  package var first: Node? { nodes.first }
  package var count: Int { nodes.count }

  /// The item's key; nil when it is not in this heap.
  package func key(of item: UInt32, _ places: Blocks<UInt32>) -> UInt64? {
    let place = Int(places[Int(item)])
    return place < nodes.count && nodes[place].item == item ? nodes[place].key : nil
  }

  package mutating func insert(_ item: UInt32, key: UInt64, _ places: inout Blocks<UInt32>) {
    nodes.append(Node(key: key, item: item))
    places[Int(item)] = UInt32(nodes.count - 1)
    rise(from: nodes.count - 1, &places)
  }

  package mutating func remove(_ item: UInt32, _ places: inout Blocks<UInt32>) {
    let place = Int(places[Int(item)])
    guard place < nodes.count, nodes[place].item == item else { return }
    places[Int(item)] = Self.absent
    let last = nodes.removeLast()
    guard place < nodes.count else { return }
    nodes[place] = last
    places[Int(last.item)] = UInt32(place)
    rise(from: place, &places)
    sink(from: Int(places[Int(last.item)]), &places)
  }

  package mutating func move(_ item: UInt32, key: UInt64, _ places: inout Blocks<UInt32>) {
    remove(item, &places)
    insert(item, key: key, &places)
  }

  private func precedes(_ a: Node, _ b: Node) -> Bool {
    a.key != b.key ? a.key < b.key : a.item < b.item
  }

  private mutating func rise(from start: Int, _ places: inout Blocks<UInt32>) {
    var place = start
    let node = nodes[place]
    while place > 0 {
      let parent = (place - 1) / 4
      guard precedes(node, nodes[parent]) else { break }
      nodes[place] = nodes[parent]
      places[Int(nodes[place].item)] = UInt32(place)
      place = parent
    }
    nodes[place] = node
    places[Int(node.item)] = UInt32(place)
  }

  private mutating func sink(from start: Int, _ places: inout Blocks<UInt32>) {
    var place = start
    let node = nodes[place]
    while true {
      let first = 4 * place + 1
      guard first < nodes.count else { break }
      var child = first
      for other in first + 1..<min(first + 4, nodes.count)
      where precedes(nodes[other], nodes[child]) { child = other }
      guard precedes(nodes[child], node) else { break }
      nodes[place] = nodes[child]
      places[Int(nodes[place].item)] = UInt32(place)
      place = child
    }
    nodes[place] = node
    places[Int(node.item)] = UInt32(place)
  }
}
