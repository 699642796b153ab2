// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import Testing

/// A state with a log in memory: decides, numbers, keeps and applies records as a store does, and
/// checks the state's invariants after each.
struct Machine {
  struct Logged {
    var entry: Entry
    var lsn: UInt64
    var position: UInt64
    var size: Int
  }

  var state = State()
  private(set) var log: [Logged] = []
  /// Records per segment; nil for a log that is one segment.
  var segmentRecords: UInt64?
  /// Every message that a record parked, where it stands.
  private(set) var parked: [State.Parked] = []
  private var lsn: UInt64 = 1

  /// Starts at a whole second, from which retention counts without rounding.
  init(at milliseconds: Int64 = 1_700_000_000_000) {
    state.advance(to: Timestamp(milliseconds: milliseconds))
  }

  var now: Int64 { state.time.milliseconds }

  @discardableResult
  mutating func apply(_ entry: Entry) throws -> UInt64 {
    lsn += 1
    // Positions in a log are 8 bytes apart at least; any number that grows will do.
    var position = lsn * 64
    if let segmentRecords { position = (lsn / segmentRecords) << 32 | (lsn % segmentRecords) * 64 }
    let size = (8 + entry.payloadSize() + 7) & ~7
    let logged = Logged(entry: entry, lsn: lsn, position: position, size: size)
    log.append(logged)
    if let place = try apply(logged, to: &state) { parked.append(place) }
    try check()
    return lsn
  }

  func apply(_ logged: Logged, to state: inout State) throws(RecordError) -> State.Parked? {
    try state.apply(
      logged.entry, lsn: logged.lsn, position: logged.position, size: logged.size)
  }

  func check() throws {
    if let broken = state.brokenInvariant() { throw BrokenInvariant(description: broken) }
  }

  /// Lets time pass and does what a scheduler does then.
  mutating func pass(milliseconds: Int64) throws {
    state.advance(to: Timestamp(milliseconds: now + milliseconds))
    try check()
    try expire()
  }

  /// Lets time pass without the scheduler's look at retention.
  mutating func advanceOnly(seconds: Int64) {
    state.advance(to: Timestamp(milliseconds: now + seconds * 1000))
  }

  mutating func pass(seconds: Int64) throws { try pass(milliseconds: seconds * 1000) }

  mutating func expire() throws {
    while let entry = state.nextExpired() { try apply(entry) }
  }

  mutating func create(
    _ name: String = "q", _ settings: QueueSettingsChange = QueueSettingsChange()
  ) throws -> QueueID {
    if let entry = try state.decideCreate(name, settings) { try apply(entry) }
    return try #require(state.queue(named: name))
  }

  mutating func change(_ queue: QueueID, _ settings: QueueSettingsChange) throws {
    try apply(try state.decideChange(queue, settings))
    try expire()
  }

  mutating func remove(_ queue: QueueID) throws { try apply(try state.decideDeleteQueue(queue)) }
  mutating func purge(_ queue: QueueID) throws { try apply(try state.decidePurge(queue)) }

  /// Returns the message's number.
  @discardableResult
  mutating func send(_ queue: QueueID, delay: Int64? = nil) throws -> UInt64 {
    let id = MessageID(randomHigh: lsn, randomLow: 0)
    let send = try state.decideSend(
      queue, messageID: id, size: 1, delay: delay, group: nil, deduplication: nil)
    guard case .record(let entry) = send else { throw BrokenInvariant(description: "a duplicate") }
    return try apply(entry)
  }

  /// Sends to a group of a FIFO queue; nil when it repeats an earlier send, whose number must be
  /// `original`.
  @discardableResult
  mutating func send(
    _ queue: QueueID, group: UInt64, id: UInt64? = nil, delay: Int64? = nil,
    original: UInt64? = nil
  ) throws -> UInt64? {
    let send = try state.decideSend(
      queue, messageID: MessageID(randomHigh: lsn, randomLow: 0), size: 1, delay: delay,
      group: TextHash(high: group, low: group),
      deduplication: id.map { TextHash(high: $0, low: $0 % 3) })
    switch send {
    case .record(let entry): return try apply(entry)
    case .duplicate(_, let message):
      #expect(original == nil || original == message)
      return nil
    }
  }

  /// Receives up to `limit` messages for `timeout` milliseconds.
  mutating func receive(
    _ queue: QueueID, _ limit: Int = 10, timeout: Int64 = 30_000
  ) throws -> [LeaseHandle] {
    var handles: [LeaseHandle] = []
    for candidate in state.candidates(queue, limit: limit) {
      let token = try apply(state.decideLease(queue, candidate, timeout: timeout))
      let lease = state.lease(candidate)
      #expect(lease.token == token)
      #expect(lease.deadline.milliseconds == now + timeout)
      handles.append(
        LeaseHandle(
          queue: queue, slot: candidate.slot, message: candidate.message, token: token))
    }
    return handles
  }

  /// Whether there was something to delete.
  @discardableResult
  mutating func delete(_ handle: LeaseHandle) throws -> Bool {
    guard let entry = try state.decideDelete(handle, from: handle.queue) else { return false }
    try apply(entry)
    return true
  }

  mutating func hide(_ handle: LeaseHandle, for timeout: Int64, limit: Int64? = nil) throws {
    try apply(
      try state.decideChangeVisibility(
        handle, of: handle.queue, timeout: timeout, totalLimit: limit))
  }

  func counts(_ queue: QueueID) -> [Int] {
    guard let counts = state.counts(queue) else { return [] }
    return [counts.visible, counts.leased, counts.delayed]
  }

  /// What a store would be that was opened on the log now, at the same time.
  func replayed() throws -> State {
    var fresh = State()
    fresh.window = state.window
    for logged in log { _ = try apply(logged, to: &fresh) }
    fresh.advance(to: state.time)
    return fresh
  }

  /// Goes on with what the log alone gives.
  mutating func restart() throws { state = try replayed() }
}

struct BrokenInvariant: Error, CustomStringConvertible {
  var description: String
}
