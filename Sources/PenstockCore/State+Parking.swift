// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem

// Waiting messages that are not in memory. Of those behind a queue's head the state knows how many
// there are in each segment, and no more; they are drawn into memory ahead of need. So memory,
// checkpoints and starts do not grow with the backlog.

extension State {
  /// Waiting messages of one queue that stand in one segment and follow each other in the queue.
  struct Run: Hashable, Sendable {
    var segment: UInt32
    var count: UInt32
    /// LSNs of the sends of all of them lie between these; other segments may hold some that lie
    /// there, too, but not of this queue's runs.
    var first: UInt64
    var last: UInt64
    var bytes: UInt64
    var oldestSecond: UInt32
    var newestSecond: UInt32

    /// Whether a message of this size can be its first one, as far as the state can tell.
    func canBegin(with message: UInt64, _ size: UInt64) -> Bool {
      message >= first && message <= last && size <= bytes
        && (count > 1 ? message < last : size == bytes)
    }

    /// Takes a message out, and those that are gone before it.
    mutating func drop(_ size: UInt64, next: UInt64) {
      (first, count, bytes) = (next, count - 1, bytes - size)
    }
  }

  /// Messages that live, and the bytes of their records.
  public struct Residents: Hashable, Sendable {
    /// How many messages.
    public var count = 0
    /// Of their records.
    public var bytes = 0
  }

  /// A message that was parked by a record.
  public struct Parked: Hashable, Sendable {
    /// The queue that it waits in.
    public var queue: QueueID
    /// `LogPosition.packed`'s segment.
    public var segment: UInt32
    /// Whether compaction wrote it again.
    public var isCopy: Bool
    /// What it is found by.
    public var message: WaitingMessage
  }

  /// What to read so that a queue has messages in memory.
  public struct Draw: Hashable, Sendable {
    /// The queue that needs messages.
    public var queue: QueueID
    /// Where they wait.
    public var segment: UInt32
    /// LSNs of the sends.
    public var first: UInt64
    /// LSN of the last of them.
    public var last: UInt64
    /// At most this many.
    public var limit: Int
  }

  /// Counts messages of a segment, and of a queue if it still has them.
  mutating func reside(_ segment: UInt32, _ count: Int, _ bytes: Int, of q: Int?) {
    func add(_ here: inout Residents) -> Bool {
      here.count += count
      here.bytes += bytes
      return here.count == 0
    }
    if add(&residents[segment, default: Residents()]) { residents[segment] = nil }
    liveBytes += bytes
    if let q { table[q].bytes += bytes }
  }

  // MARK: Apply

  mutating func park(
    _ q: Int, _ entry: Entry, _ lsn: UInt64, _ position: UInt64, _ size: Int
  ) throws(RecordError) -> Parked {
    guard table[q].runs.last.map({ $0.last < lsn }) ?? true,
      let parked = entry.parked(lsn: lsn, position: position, size: size)
    else { throw RecordError(description: "LSN \(lsn) is parked behind a later message") }
    extend(q, at: table[q].runs.count, parked, size)
    table[q].counts.visible += 1
    if table[q].ready.isEmpty { awaitExpiry(q) }
    return parked
  }

  /// Counts a message into the run before place `index`, or into a new one there.
  private mutating func extend(_ q: Int, at index: Int, _ parked: Parked, _ size: Int) {
    let message = parked.message.message
    let second = parked.message.sentSecond
    if index > 0, table[q].runs[index - 1].segment == parked.segment {
      var run = table[q].runs[index - 1]
      (run.count, run.last, run.bytes) = (run.count + 1, message, run.bytes + UInt64(size))
      run.newestSecond = max(run.newestSecond, second)
      table[q].runs[index - 1] = run
    } else {
      let run = Run(
        segment: parked.segment, count: 1, first: message, last: message, bytes: UInt64(size),
        oldestSecond: second, newestSecond: second)
      table[q].runs.insert(run, at: index)
    }
    table[q].parked += 1
    parkedCount += 1
    reside(parked.segment, 1, size, of: q)
  }

  /// Takes the first message out of a run; it must be `message`, as far as the state can tell.
  private mutating func shorten(
    _ q: Int, at index: Int, _ message: UInt64, _ size: Int, _ lsn: UInt64
  ) throws(RecordError) {
    guard index < table[q].runs.count else {
      throw RecordError(description: "LSN \(lsn) names message \(message), which is not parked")
    }
    guard table[q].runs[index].canBegin(with: message, UInt64(size)),
      !table[q].holes.contains(message)
    else {
      throw RecordError(description: "LSN \(lsn) takes message \(message) out of another's run")
    }
    drop(size, outOf: index, of: q, next: message + 1)
  }

  /// Takes a message out of a run, which begins with `next` or behind it then.
  mutating func drop(_ size: Int, outOf index: Int, of q: Int, next: UInt64) {
    let segment = table[q].runs[index].segment
    if table[q].runs[index].count == 1 {
      table[q].runs.remove(at: index)
    } else {
      table[q].runs[index].drop(UInt64(size), next: next)
    }
    table[q].parked -= 1
    parkedCount -= 1
    reside(segment, -1, -size, of: q)
    dropHoles(q)
  }

  mutating func draw(
    _ q: Int, _ segment: UInt32, _ messages: [WaitingMessage], _ lsn: UInt64
  ) throws(RecordError) {
    for message in messages {
      guard table[q].runs.first?.segment == segment else {
        throw RecordError(description: "LSN \(lsn) draws from segment \(segment), which has none")
      }
      try shorten(q, at: 0, message.message, Int(message.size), lsn)
      let index = slab.allocate()
      slab[index].position = UInt64(segment) << 32 | UInt64(message.offset)
      slab[index].message = message.message
      slab[index].size = Int(message.size)
      slab[index].sentSecond = message.sentSecond
      slab[index].state = .ready
      slab[index].link = table[q].id.value
      table[q].ready.append(index, &slab)
      table[q].readyCount += 1
      reside(segment, 1, slab[index].size, of: q)
    }
    if let last = messages.last, table[q].runs.first?.segment == segment {
      table[q].runs[0].oldestSecond = max(table[q].runs[0].oldestSecond, last.sentSecond)
    }
    awaitExpiry(q)
  }

  /// Gives a message another place in the log.
  mutating func move(
    _ q: Int, _ entry: Entry, _ moved: Record.Moved, _ lsn: UInt64, _ position: UInt64, _ size: Int
  ) throws(RecordError) -> Parked? {
    let segment = UInt32(truncatingIfNeeded: position >> 32)
    if let slot = moved.slot {
      try check(q, slot, moved.message, lsn)
      reside(slab[slot].segment, -1, -slab[slot].size, of: q)
      slab[slot].position = position
      slab[slot].size = size
      reside(segment, 1, slab[slot].size, of: q)
      noteBytes(of: slot, are: table[q].id.value)
      return nil
    }
    let index = runIndex(q, moved.message)
    guard let parked = entry.parked(lsn: lsn, position: position, size: size) else { return nil }
    try shorten(q, at: index, moved.message, size - (moved.isAgain ? 0 : 8), lsn)
    // Its new place in the order is where it was: before what is left of its run.
    extend(q, at: index, parked, size)
    // The first run may end earlier than the one it was a part of.
    awaitExpiry(q)
    return parked
  }

  mutating func setAside(
    _ q: Int, _ message: UInt64, _ slot: UInt32?, _ size: UInt32, _ lsn: UInt64
  ) throws(RecordError) {
    if let slot {
      try check(q, slot, message, lsn)
      removeMessage(slot)
    } else {
      try shorten(q, at: runIndex(q, message), message, Int(size), lsn)
      table[q].counts.visible -= 1
    }
    table[q].setAside &+= 1
  }

  /// Forgets the runs that end at or before an LSN.
  mutating func dropRuns(_ q: Int, through: UInt64) {
    let count = table[q].runs.firstIndex { $0.last > through } ?? table[q].runs.count
    guard count > 0 else { return }
    for run in table[q].runs[..<count] {
      table[q].parked -= Int(run.count)
      table[q].counts.visible -= Int(run.count)
      parkedCount -= Int(run.count)
      reside(run.segment, -Int(run.count), -Int(run.bytes), of: q)
    }
    table[q].runs.removeSubrange(..<count)
    dropHoles(q)
  }

  /// The first run that ends at or behind an LSN.
  func runIndex(_ q: Int, _ message: UInt64) -> Int {
    table[q].runs.firstPlace { $0.last < message }
  }

  // MARK: Decide

  /// Whether a new message of the queue is to be parked: when others are, or enough are in memory.
  func parksNext(_ q: Int) -> Bool { !table[q].runs.isEmpty || table[q].readyCount >= window }

  /// What to read next, when few messages of the queue are in memory and others wait.
  public func decideDraw(_ id: QueueID) -> Draw? {
    guard let q = places[id.value], let run = table[q].runs.first,
      table[q].readyCount <= window / 2
    else { return nil }
    return Draw(
      queue: id, segment: run.segment, first: run.first, last: run.last,
      limit: min(max(1, window / 2), Int(run.count)))
  }

  /// The record that draws what was read for a `Draw`; nil when the queue's runs are others by now.
  ///
  /// - Parameter messages: in the order of their sends; as many as the segment's index has from
  ///   `first` on.
  public func decideDrawn(_ draw: Draw, _ messages: [WaitingMessage]) -> Entry? {
    guard let q = places[draw.queue.value], let run = table[q].runs.first,
      run.segment == draw.segment
    else { return nil }
    let found = withoutHoles(draw.queue, messages)
      .filter { $0.message >= run.first && $0.message <= run.last }.prefix(Int(run.count))
    guard !found.isEmpty else { return nil }
    // What the file says is no more than a claim: the same that `shorten` demands.
    var rest = run
    for message in found {
      guard rest.canBegin(with: message.message, UInt64(message.size)) else { return nil }
      rest.drop(UInt64(message.size), next: message.message + 1)
    }
    return Entry(queue: draw.queue, time: time, record: .drawn(segment: draw.segment, Array(found)))
  }

  /// Whether messages wait that are not in memory.
  public func hasParked(_ id: QueueID) -> Bool {
    places[id.value].map { !table[$0].runs.isEmpty } ?? false
  }

  // MARK: Compaction

  /// What a queue has parked in a segment, in order.
  public func parked(in segment: UInt32) -> [Draw] {
    places.keys.sorted().flatMap { id -> [Draw] in
      guard let q = places[id] else { return [] }
      return table[q].runs.filter { $0.segment == segment }.map {
        Draw(
          queue: QueueID(id), segment: segment, first: $0.first, last: $0.last,
          limit: Int($0.count))
      }
    }
  }

  /// The place of a message in memory whose bytes are in a segment.
  public struct Resident: Hashable, Sendable {
    /// Where the state has it.
    public var slot: UInt32
    /// LSN of its send, or of its move to the queue.
    public var message: UInt64
    /// Of its record: `LogPosition.packed`.
    public var position: UInt64
    /// Of the record, in bytes; no less than it has.
    public var size: Int
    /// The queue that the message's bytes name.
    public var bytesQueue: QueueID
    /// A place; whether it still holds is asked later.
    public init(slot: UInt32, message: UInt64, position: UInt64, size: Int, bytesQueue: QueueID) {
      self.slot = slot
      self.message = message
      self.position = position
      self.size = size
      self.bytesQueue = bytesQueue
    }
  }

  /// Messages in memory whose bytes are in a segment, from a range of slots.
  public func residents(of segment: UInt32, slots: Range<Int>) -> [Resident] {
    var found: [Resident] = []
    for index in slots.clamped(to: 0..<slab.capacity) {
      let slot = slab[UInt32(index)]
      if slot.state != .free, slot.segment == segment { found.append(resident(UInt32(index))) }
    }
    return found
  }

  func resident(_ index: UInt32) -> Resident {
    let slot = slab[index]
    return Resident(
      slot: index, message: slot.message, position: slot.position, size: slot.size,
      bytesQueue: QueueID(bytesQueue(of: index)))
  }

  /// Where the bytes of a leased message are now; nil when it is gone.
  public func resident(_ handle: LeaseHandle) -> Resident? {
    guard let q = places[handle.queue.value],
      isLive(q, slot: handle.slot, message: handle.message)
    else { return nil }
    return resident(handle.slot)
  }

  /// Where the bytes of a message in memory are now that was sighted; nil when it is gone.
  public func resident(again sight: Sight) -> Resident? {
    let (slot, message) = (sight.resident.slot, sight.resident.message)
    guard sight.parked == nil, slab.contains(slot), slab[slot].state != .free,
      slab[slot].message == message
    else { return nil }
    return resident(slot)
  }

  /// Slots that were ever used.
  public var slotCount: Int { slab.capacity }

  /// Whether a message in memory still has its bytes in this place, and its queue.
  public func owner(of resident: Resident) -> QueueID? {
    guard slab.contains(resident.slot), slab[resident.slot].state != .free,
      slab[resident.slot].position == resident.position,
      let q = places[queueNumber(of: resident.slot)],
      isLive(q, slot: resident.slot, message: resident.message)
    else { return nil }
    return table[q].id
  }

  /// Whether a message of this size can be the first of its queue's run in a segment.
  public func isFirstParked(
    _ message: UInt64, _ id: QueueID, in segment: UInt32, size: Int
  ) -> Bool {
    guard let q = places[id.value] else { return false }
    let index = runIndex(q, message)
    guard table[q].runs.indices.contains(index), size >= 0 else { return false }
    let run = table[q].runs[index]
    return run.segment == segment && run.canBegin(with: message, UInt64(size))
      && !table[q].holes.contains(message)
  }
}

extension Entry {
  /// What a parked message must be found by; nil for a record that parks none.
  public func parked(lsn: UInt64, position: UInt64, size: Int) -> State.Parked? {
    let message: UInt64
    let isCopy: Bool
    switch record {
    case .sent(let sent) where sent.isParked: (message, isCopy) = (lsn, false)
    case .moved(let moved) where moved.slot == nil: (message, isCopy) = (moved.message, true)
    default: return nil
    }
    return State.Parked(
      queue: queue, segment: UInt32(truncatingIfNeeded: position >> 32), isCopy: isCopy,
      message: WaitingMessage(
        message: message, offset: UInt32(truncatingIfNeeded: position),
        size: UInt32(clamping: size), sentSecond: time.secondRoundedUp))
  }
}
