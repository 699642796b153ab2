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
    /// Never received and visible, in a group.
    case grouped

    var isVisible: Bool { self == .ready || self == .returned || self == .grouped }
    var hasActivity: Bool { self == .delayed || self == .leased || self == .returned }
  }

  /// From the low bits: LSN of the send record 56, state 3, exponent of the size 5.
  private var identity: UInt64 = 0
  /// From the low bits: offset in eights 27, ordinal of the segment 28, mantissa of the size 9.
  private var place: UInt64 = 0
  /// Neighbours in the list that the message is in, or `Slab.none`.
  package var next = Slab.none
  package var previous = Slab.none
  /// `QueueID` while ready, index of the group while grouped, else index of the activity, which
  /// names both.
  package var link: UInt32 = 0
  /// Whole seconds since 1970, rounded up, so that retention never ends early.
  package var sentSecond: UInt32 = 0

  package init() {}

  /// From what a checkpoint holds.
  package init(words: (identity: UInt64, place: UInt64)) { (identity, place) = words }
  package var words: (identity: UInt64, place: UInt64) { (identity, place) }

  package var message: UInt64 {
    get { identity & 0x00ff_ffff_ffff_ffff }
    set { identity = identity & ~0x00ff_ffff_ffff_ffff | newValue & 0x00ff_ffff_ffff_ffff }
  }
  package var state: State {
    get { State(rawValue: UInt8(truncatingIfNeeded: identity >> 56) & 7) ?? .free }
    set { identity = identity & ~(7 << 56) | UInt64(newValue.rawValue) << 56 }
  }

  /// `LogPosition.packed` of the record that holds the body: segment 32 bits, offset 32 bits.
  package var position: UInt64 {
    get { (place >> 27 & Self.segmentMask) << 32 | place << 3 & 0x3fff_fff8 }
    set {
      place =
        place & ~(1 << 55 - 1) | (newValue >> 32 & Self.segmentMask) << 27
        | (newValue & 0x3fff_fff8) >> 3
    }
  }
  package var segment: UInt32 { UInt32(truncatingIfNeeded: place >> 27 & Self.segmentMask) }
  static let segmentMask: UInt64 = 1 << 28 - 1

  /// Bytes of that record, rounded up by less than one in 256.
  package var size: Int {
    get {
      let exponent = Int(identity >> 59)
      let mantissa = Int(place >> 55)
      return 8 * (exponent == 0 ? mantissa : (mantissa | 512) << (exponent - 1))
    }
    set {
      var mantissa = min((newValue + 7) / 8, 1 << 28 - 1)
      var exponent = 0
      if mantissa >= 512 {
        let shift = Int.bitWidth - mantissa.leadingZeroBitCount - 10
        mantissa = (mantissa + 1 << shift - 1) >> shift
        exponent = shift + 1
        // Rounding up may have needed one more bit.
        if mantissa == 1024 { (mantissa, exponent) = (512, exponent + 1) }
        mantissa &= 511
      }
      identity = identity & ~(31 << 59) | UInt64(exponent) << 59
      place = place & (1 << 55 - 1) | UInt64(mantissa) << 55
    }
  }
}

/// All messages in memory, with a list of free places.
///
/// Places are given out in an order that depends on records alone, so a replay gives every message
/// the place it had; receipt handles rely on it.
package struct Slab: Sendable {
  package static let none = UInt32.max

  private var slots = Blocks<Slot>()
  private(set) var freeHead = Slab.none
  package private(set) var count = 0

  package init() {}

  /// Places that were ever given out.
  package var capacity: Int { slots.count }

  package subscript(index: UInt32) -> Slot {
    @inline(__always) get { slots[Int(index)] }
    @inline(__always) _modify { yield &slots[Int(index)] }
  }

  /// Whether `index` names a place at all; indexes from outside are asked first.
  package func contains(_ index: UInt32) -> Bool { Int(index) < capacity }

  package mutating func allocate() -> UInt32 {
    count += 1
    return slots.put(Slot(), free: &freeHead) { $0.next }
  }

  package mutating func free(_ index: UInt32) {
    self[index] = Slot()
    self[index].next = freeHead
    freeHead = index
    count -= 1
  }

  /// Free places, the next to be given out first.
  package var freePlaces: [UInt32] { chain(from: freeHead) }

  /// The places of a list from one of them on.
  func chain(from first: UInt32) -> [UInt32] { Self.chain(from: first) { self[$0].next } }

  /// The same of a list of something else.
  static func chain(from first: UInt32, _ next: (UInt32) -> UInt32) -> [UInt32] {
    var (chain, index) = ([UInt32](), first)
    while index != none {
      chain.append(index)
      index = next(index)
    }
    return chain
  }

  /// Places from a checkpoint: all in use until `free` is called for those that are not.
  init(capacity: Int) {
    for _ in 0..<capacity { slots.append(Slot()) }
    count = capacity
  }
}

/// What only a message has that was received, leased, delayed, moved here or is urgent: 40 bytes.
/// Times are in milliseconds, held between 1970 and the year 6429.
struct Activity: Sendable {
  /// From the low bits: a time 48, and a half of the receive count 16.
  private var first: UInt64 = 0
  private var second: UInt64 = 0
  /// From the low bits: a time 48, priority 8, flags 8.
  private var third: UInt64 = 0
  /// LSN of the newest lease record.
  var token: UInt64 = 0
  var slot: UInt32
  /// Index of the message's group, otherwise number of its queue.
  private(set) var owner: UInt32

  init(slot: UInt32, queue: UInt32, group: UInt32 = Slab.none) {
    self.slot = slot
    owner = queue
    if group != Slab.none { self.group = group }
  }

  private static let timeMask: UInt64 = 1 << 48 - 1
  /// The last time that has room: leases and delays that end later never do.
  static let endOfTime: Int64 = 1 << 47 - 1

  private static func time(_ word: UInt64) -> Int64 { Int64(word & timeMask) }
  private static func put(_ time: Int64, _ word: inout UInt64) {
    word = word & ~timeMask | UInt64(time.clamped(to: 0...endOfTime))
  }

  /// End of the lease or delay.
  var deadline: Int64 {
    get { Self.time(first) }
    set { Self.put(newValue, &first) }
  }
  /// Time of the newest lease, for limits on a lease's whole length; of the send while delayed.
  var leasedAt: Int64 {
    get { Self.time(second) }
    set { Self.put(newValue, &second) }
  }
  /// Time of the first receive; meaningless while `receiveCount` is 0.
  var firstReceivedAt: Int64 {
    get { Self.time(third) }
    set { Self.put(newValue, &third) }
  }
  var receiveCount: UInt32 {
    get { UInt32(first >> 48) | UInt32(second >> 48) << 16 }
    set {
      first = first & Self.timeMask | UInt64(newValue & 0xffff) << 48
      second = second & Self.timeMask | UInt64(newValue >> 16) << 48
    }
  }
  var priority: UInt8 {
    get { UInt8(truncatingIfNeeded: third >> 48) }
    set { third = third & ~(255 << 48) | UInt64(newValue) << 48 }
  }

  private func flag(_ place: UInt64) -> Bool { third >> (56 + place) & 1 != 0 }
  private mutating func setFlag(_ place: UInt64, _ isOn: Bool) {
    third = third & ~(1 << (56 + place)) | (isOn ? 1 : 0) << (56 + place)
  }
  private var isGrouped: Bool {
    get { flag(0) }
    set { setFlag(0, newValue) }
  }
  /// It came from another queue: `State.transfers` has more.
  var isTransferred: Bool {
    get { flag(1) }
    set { setFlag(1, newValue) }
  }
  /// Visible, and its retention has ended: to be removed by a record.
  var isOverdue: Bool {
    get { flag(2) }
    set { setFlag(2, newValue) }
  }
  /// Its delay is its own, not the queue's.
  var hasOwnDelay: Bool {
    get { flag(3) }
    set { setFlag(3, newValue) }
  }

  var group: UInt32 {
    get { isGrouped ? owner : Slab.none }
    set { (owner, isGrouped) = (newValue, true) }
  }
  mutating func belong(to queue: UInt32) { (owner, isGrouped) = (queue, false) }

  /// Whether it stands outside the order of sends: then its retention has a timer of its own.
  var isStray: Bool { !isGrouped && (isTransferred || priority > 0) }
}

/// A doubly linked list of slots.
package struct SlotList: Sendable, Hashable {
  package var head = Slab.none
  package var tail = Slab.none

  package init(head: UInt32 = Slab.none) { self.head = head }

  package var isEmpty: Bool { head == Slab.none }

  package mutating func append(_ index: UInt32, _ slab: inout Slab) {
    slab[index].next = Slab.none
    slab[index].previous = tail
    if tail == Slab.none { head = index } else { slab[tail].next = index }
    tail = index
  }

  mutating func prepend(_ index: UInt32, _ slab: inout Slab) {
    slab[index].next = head
    slab[index].previous = Slab.none
    if head == Slab.none { tail = index } else { slab[head].previous = index }
    head = index
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
