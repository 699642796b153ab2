// SPDX-License-Identifier: Apache-2.0

/// A message in memory: 32 bytes whatever the body's size. The body stays in the log.
package struct Slot: Sendable {
  package enum State: UInt8, Sendable {
    case free
    /// Never received and visible.
    case ready
    /// Hidden by a delay; has an `Activity`.
    case delayed
    /// Hidden by a lease; has an `Activity`.
    case leased
    /// Visible again after a delay or a lease; has an `Activity`.
    case returned
  }

  /// `LogPosition.packed` of the send record.
  package var position: UInt64 = 0
  /// LSN of the send record in the low 56 bits, state in the high 8.
  private var identity: UInt64 = 0
  /// Neighbours in the list that the message is in, or `Slab.none`.
  package var next = Slab.none
  package var previous = Slab.none
  /// `QueueID` while ready, else index of the activity, which names the queue.
  package var link: UInt32 = 0
  /// Whole seconds since 1970, rounded up, so that retention never ends early.
  package var sentSecond: UInt32 = 0

  package init() {}

  package var message: UInt64 {
    get { identity & 0x00ff_ffff_ffff_ffff }
    set { identity = identity & ~0x00ff_ffff_ffff_ffff | newValue & 0x00ff_ffff_ffff_ffff }
  }
  package var state: State {
    get { State(rawValue: UInt8(identity >> 56)) ?? .free }
    set { identity = message | UInt64(newValue.rawValue) << 56 }
  }
}

/// All messages in memory, in blocks that never move, with a list of free places.
///
/// Places are given out in an order that depends on records alone, so a replay gives every message
/// the place it had; receipt handles rely on it.
package struct Slab: Sendable {
  package static let none = UInt32.max
  static let blockShift: UInt32 = 16
  static let blockMask: UInt32 = (1 << blockShift) - 1

  private var blocks: [[Slot]] = []
  private var freeHead = Slab.none
  package private(set) var count = 0

  package init() {}

  /// Places that were ever given out.
  package private(set) var capacity = 0

  package subscript(index: UInt32) -> Slot {
    @inline(__always) get {
      blocks[Int(index >> Self.blockShift)][Int(index & Self.blockMask)]
    }
    @inline(__always) _modify {
      yield &blocks[Int(index >> Self.blockShift)][Int(index & Self.blockMask)]
    }
  }

  /// Whether `index` names a place at all; indexes from outside are asked first.
  package func contains(_ index: UInt32) -> Bool { Int(index) < capacity }

  package mutating func allocate() -> UInt32 {
    count += 1
    let index = freeHead
    if index == Self.none { return grow() }
    freeHead = self[index].next
    self[index] = Slot()
    return index
  }

  package mutating func free(_ index: UInt32) {
    self[index] = Slot()
    self[index].next = freeHead
    freeHead = index
    count -= 1
  }

  /// Gives out a place that nobody had before. A block's memory is reserved whole, so that it never
  /// moves, and touched as places are given out.
  private mutating func grow() -> UInt32 {
    let index = UInt32(capacity)
    if index & Self.blockMask == 0 {
      blocks.append([])
      blocks[blocks.count - 1].reserveCapacity(1 << Int(Self.blockShift))
    }
    blocks[blocks.count - 1].append(Slot())
    capacity += 1
    return index
  }
}

/// What only a message has that was received, leased or delayed.
struct Activity: Sendable {
  /// End of the lease or delay, in milliseconds.
  var deadline: Int64 = 0
  /// Time of the newest lease; for limits on a lease's whole length.
  var leasedAt: Int64 = 0
  /// Time of the first receive; meaningless while `receiveCount` is 0.
  var firstReceivedAt: Int64 = 0
  /// LSN of the newest lease record.
  var token: UInt64 = 0
  var slot: UInt32 = 0
  var queue: UInt32 = 0
  var receiveCount: UInt32 = 0
}

/// A doubly linked list of slots.
package struct SlotList: Sendable, Hashable {
  package var head = Slab.none
  package var tail = Slab.none

  package init() {}

  package var isEmpty: Bool { head == Slab.none }

  package mutating func append(_ index: UInt32, _ slab: inout Slab) {
    slab[index].next = Slab.none
    slab[index].previous = tail
    if tail == Slab.none { head = index } else { slab[tail].next = index }
    tail = index
  }

  package mutating func remove(_ index: UInt32, _ slab: inout Slab) {
    let next = slab[index].next
    let previous = slab[index].previous
    if previous == Slab.none { head = next } else { slab[previous].next = next }
    if next == Slab.none { tail = previous } else { slab[next].previous = previous }
    slab[index].next = Slab.none
    slab[index].previous = Slab.none
  }
}
