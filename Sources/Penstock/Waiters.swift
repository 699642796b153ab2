// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore

/// Receives that wait for a message: first come, first served in each queue; each with a deadline.
///
/// Invariants
/// - I1: a waiter is in its queue's list and in `deadlines` until it is removed.
/// - I2: a ticket names a place and how often the place was used, so an old one names nothing.
/// - I3: a held waiter stands in `deadlines` at the end of time.
struct Waiters {
  struct Waiter {
    var queue: QueueID
    var maximumMessages: Int
    /// Milliseconds.
    var visibility: Int64
    var deadline: Timestamp
    /// It does not wait.
    var isShort: Bool
    /// The first LSN behind it: what came to the queue since is not moved on by it.
    var start: UInt64
    /// The receive may be repeated under this.
    var attempt: TextHash?
    var completion: Completion<[ReceivedMessage]>
  }

  private struct Place {
    var waiter: Waiter?
    var isHeld = false
    var use: UInt32 = 0
    var next = Waiters.none
    var previous = Waiters.none
  }

  static let none = UInt32.max

  private var places: [Place] = []
  private var free: [UInt32] = []
  private var lists: [QueueID: (head: UInt32, tail: UInt32)] = [:]
  private var deadlines = IndexedHeap()
  private var heapPlaces = Blocks<UInt32>()

  var isEmpty: Bool { deadlines.count == 0 }
  var count: Int { deadlines.count }
  var nextDeadline: Timestamp? {
    deadlines.first.map { Timestamp(milliseconds: Int64(clamping: $0.key)) }
  }

  func isWaiting(on queue: QueueID) -> Bool { lists[queue] != nil }

  mutating func add(_ waiter: Waiter) -> ReceiveTicket {
    let index: UInt32
    if let place = free.popLast() {
      index = place
    } else {
      index = UInt32(places.count)
      places.append(Place())
      heapPlaces.append(IndexedHeap.absent)
    }
    places[Int(index)].waiter = waiter
    places[Int(index)].isHeld = false
    places[Int(index)].use &+= 1
    places[Int(index)].next = Self.none
    let tail = lists[waiter.queue]?.tail ?? Self.none
    places[Int(index)].previous = tail
    if tail != Self.none { places[Int(tail)].next = index }
    lists[waiter.queue] = (lists[waiter.queue]?.head ?? index, index)
    deadlines.insert(index, key: UInt64(clamping: waiter.deadline.milliseconds), &heapPlaces)
    return ticket(index)
  }

  private func ticket(_ index: UInt32) -> ReceiveTicket {
    ReceiveTicket(value: UInt64(places[Int(index)].use) << 32 | UInt64(index))
  }

  /// The waiter that is served next, left in its place.
  func first(on queue: QueueID) -> (ReceiveTicket, Waiter)? {
    guard let index = lists[queue]?.head, let waiter = places[Int(index)].waiter else { return nil }
    return (ticket(index), waiter)
  }

  /// Where the ticket's waiter is, if it still waits.
  private func find(_ ticket: ReceiveTicket) -> (index: UInt32, waiter: Waiter)? {
    let index = UInt32(truncatingIfNeeded: ticket.value)
    guard Int(index) < places.count, self.ticket(index) == ticket,
      let waiter = places[Int(index)].waiter
    else { return nil }
    return (index, waiter)
  }

  /// The queue that the ticket's waiter waits on; nil when it waits no more.
  func queue(of ticket: ReceiveTicket) -> QueueID? { find(ticket)?.waiter.queue }

  /// Sets a waiter's deadline aside; false when it was set aside before or there is no such waiter.
  mutating func hold(_ ticket: ReceiveTicket) -> Bool {
    guard let (index, _) = find(ticket), !places[Int(index)].isHeld else { return false }
    places[Int(index)].isHeld = true
    deadlines.move(index, key: UInt64(Int64.max), &heapPlaces)
    return true
  }

  /// Gives a held waiter its deadline back.
  mutating func resume(_ ticket: ReceiveTicket) {
    guard let (index, waiter) = find(ticket), places[Int(index)].isHeld else { return }
    places[Int(index)].isHeld = false
    deadlines.move(index, key: UInt64(clamping: waiter.deadline.milliseconds), &heapPlaces)
  }

  mutating func remove(_ ticket: ReceiveTicket) -> Waiter? {
    guard let (index, waiter) = find(ticket) else { return nil }
    places[Int(index)].waiter = nil
    deadlines.remove(index, &heapPlaces)
    let next = places[Int(index)].next
    let previous = places[Int(index)].previous
    if next != Self.none { places[Int(next)].previous = previous }
    if previous != Self.none { places[Int(previous)].next = next }
    if var list = lists[waiter.queue] {
      if list.head == index { list.head = next }
      if list.tail == index { list.tail = previous }
      lists[waiter.queue] = list.head == Self.none ? nil : list
    }
    free.append(index)
    return waiter
  }

  /// Takes out one waiter whose deadline is not after `now`.
  mutating func takeExpired(at now: Timestamp) -> Waiter? {
    guard let first = deadlines.first, first.key <= UInt64(clamping: now.milliseconds) else {
      return nil
    }
    return remove(ticket(first.item))
  }

  /// Takes out everybody, or everybody on one queue.
  mutating func removeAll(on queue: QueueID? = nil) -> [Waiter] {
    var all: [Waiter] = []
    while let next = queue.map({ first(on: $0)?.0 }) ?? deadlines.first.map({ ticket($0.item) }),
      let waiter = remove(next)
    { all.append(waiter) }
    return all
  }
}
