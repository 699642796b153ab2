// SPDX-License-Identifier: Apache-2.0

/// A first-in, first-out queue in one array: appends and removals cost O(1) each, amortised.
public struct Deque<Element> {
  @usableFromInline var elements: [Element?] = []
  @usableFromInline var head = 0

  /// An empty one.
  @inlinable public init() {}

  /// Elements in it.
  @inlinable public var count: Int { elements.count - head }
  /// Whether there are none.
  @inlinable public var isEmpty: Bool { head == elements.count }
  /// The element that was appended first; nil when it is empty.
  @inlinable public var first: Element? { isEmpty ? nil : elements[head] }
  /// The element that was appended last; nil when it is empty.
  @inlinable public var last: Element? { isEmpty ? nil : elements[elements.count - 1] }

  /// Adds an element at the end.
  @inlinable public mutating func append(_ element: Element) { elements.append(element) }

  /// Takes out the first element; nil when it is empty.
  @inlinable public mutating func popFirst() -> Element? {
    guard head < elements.count else { return nil }
    let element = elements[head].take()
    head += 1
    if head == elements.count {
      elements.removeAll(keepingCapacity: elements.capacity <= 4096)
      head = 0
    } else if head > 1024, head * 2 > elements.count {
      elements.removeFirst(head)
      head = 0
    }
    return element
  }

  /// Takes out the last element; nil when it is empty.
  @inlinable public mutating func popLast() -> Element? {
    guard head < elements.count else { return nil }
    let element = elements.removeLast()
    if head == elements.count {
      elements.removeAll()
      head = 0
    }
    return element
  }

  /// Takes everything out, in order.
  @inlinable public mutating func removeAll() -> [Element] {
    defer { self = Deque() }
    return all
  }

  /// What is in it, in order.
  @inlinable public var all: [Element] { elements[head...].compactMap { $0 } }
}

extension Deque: Sendable where Element: Sendable {}
