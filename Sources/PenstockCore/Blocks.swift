// SPDX-License-Identifier: Apache-2.0

/// An array in blocks of a thousand: a copy that is kept while the original changes costs one block
/// per block that changes, so that a checkpoint can be written from a copy while the store runs.
///
/// - Complexity: a copy shares all blocks; the first change after it copies the list of blocks.
package struct Blocks<Element: Sendable>: Sendable {
  private static var shift: Int { 10 }
  private static var mask: Int { (1 << shift) - 1 }

  private var blocks: [[Element]] = []
  package private(set) var count = 0

  package init() {}

  package subscript(index: Int) -> Element {
    @inline(__always) get { blocks[index >> Self.shift][index & Self.mask] }
    @inline(__always) _modify { yield &blocks[index >> Self.shift][index & Self.mask] }
  }

  package var first: Element? { count == 0 ? nil : self[0] }

  package mutating func append(_ element: Element) {
    if count & Self.mask == 0 {
      blocks.append([])
      blocks[blocks.count - 1].reserveCapacity(count == 0 ? 1 : 1 << Self.shift)
    }
    blocks[blocks.count - 1].append(element)
    count += 1
  }

  /// Puts an element in the first free place, or behind the others.
  ///
  /// - Parameter next: the free place that a free one names.
  package mutating func put(
    _ element: Element, free: inout UInt32, next: (Element) -> UInt32
  ) -> UInt32 {
    guard free != Slab.none else {
      append(element)
      return UInt32(count - 1)
    }
    let place = free
    free = next(self[Int(place)])
    self[Int(place)] = element
    return place
  }

  /// The array must not be empty.
  package mutating func removeLast() -> Element {
    count -= 1
    let element = blocks[blocks.count - 1].removeLast()
    if count & Self.mask == 0 { blocks.removeLast() }
    return element
  }
}
