// SPDX-License-Identifier: Apache-2.0

/// A first-in, first-out queue in one array: appends and removals cost O(1) each, amortised.
public struct Deque<Element> {
  private var elements: [Element?] = []
  private var head = 0

  public init() {}

  public var count: Int { elements.count - head }
  public var isEmpty: Bool { head == elements.count }
  public var first: Element? { isEmpty ? nil : elements[head] }
  public var last: Element? { isEmpty ? nil : elements[elements.count - 1] }

  public mutating func append(_ element: Element) { elements.append(element) }

  public mutating func popFirst() -> Element? {
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

  public mutating func popLast() -> Element? {
    guard head < elements.count else { return nil }
    let element = elements.removeLast()
    if head == elements.count {
      elements.removeAll()
      head = 0
    }
    return element
  }

  /// Takes everything out, in order.
  public mutating func removeAll() -> [Element] {
    let all = elements[head...].compactMap { $0 }
    elements = []
    head = 0
    return all
  }
}

extension Deque: Sendable where Element: Sendable {}

extension Deque {
  /// What is in it, in order.
  public var all: [Element] { elements[head...].compactMap { $0 } }
}
