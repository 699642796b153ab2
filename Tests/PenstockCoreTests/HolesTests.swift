// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import PenstockSystem
import Testing

/// A queue whose messages are parked where a test says.
private struct Parking {
  var state = State()
  let queue = QueueID(1)
  let id = MessageID(randomHigh: 1, randomLow: 2)

  init() throws {
    state.window = 0
    try apply(.queueCreated(name: "q", settings: QueueSettings()), 2, 1)
  }

  mutating func apply(_ record: Record, _ lsn: UInt64, _ segment: UInt64, size: Int = 64) throws {
    let entry = Entry(
      queue: queue, time: Timestamp(milliseconds: 1_700_000_000_000), record: record)
    _ = try state.apply(entry, lsn: lsn, position: segment << 32 | lsn * 128, size: size)
    #expect(state.brokenInvariant() == nil)
    // A checkpoint can be read at every step.
    let read = try decodedState(encoded(state))
    #expect(read.stateHash() == state.stateHash() && read.brokenInvariant() == nil)
  }

  mutating func park(_ lsns: ClosedRange<UInt64>, in segment: UInt64) throws {
    for lsn in lsns {
      try apply(.sent(.init(id: id, visibleAt: nil, isParked: true)), lsn, segment)
    }
  }

  mutating func copy(_ message: UInt64, _ lsn: UInt64, to segment: UInt64) throws {
    try apply(.moved(.init(id: id, message: message, slot: nil)), lsn, segment, size: 72)
  }

  mutating func excise(_ message: UInt64, _ lsn: UInt64, in segment: UInt32) throws {
    try apply(.excised(message: message, segment: segment, size: 64), lsn, 9)
  }

  /// What of a segment's listing is drawn.
  func drawn(_ listed: [(message: UInt64, size: UInt32)]) throws -> [UInt64] {
    let draw = try #require(state.decideDraw(queue))
    let waiting = listed.map {
      WaitingMessage(message: $0.message, offset: 8, size: $0.size, sentSecond: 1_700_000_000)
    }
    guard case .drawn(_, let found)? = state.decideDrawn(draw, waiting)?.record else { return [] }
    return found.map(\.message)
  }
}

@Suite struct Holes {
  /// Later runs were taken out whole, and the one before them grows over where they were.
  @Test func doNotComeBackWhenARunGrows() throws {
    var parking = try Parking()
    try parking.park(5...6, in: 1)
    try parking.park(7...8, in: 2)
    try parking.copy(5, 9, to: 3)
    try parking.copy(6, 10, to: 3)
    try parking.park(11...12, in: 3)
    for (lsn, message) in [7, 8].enumerated() {
      try parking.excise(UInt64(message), UInt64(13 + lsn), in: 2)
    }
    for (lsn, message) in [11, 12].enumerated() {
      try parking.excise(UInt64(message), UInt64(15 + lsn), in: 3)
    }
    try parking.park(17...17, in: 3)
    #expect(try parking.drawn([(5, 72), (6, 72), (11, 64), (12, 64), (17, 64)]) == [5, 6, 17])
  }

  @Test func stayBehindTheLastRun() throws {
    var parking = try Parking()
    try parking.park(3...8, in: 1)
    try parking.park(9...11, in: 2)
    for message in UInt64(9)...11 { try parking.excise(message, message + 3, in: 2) }
    #expect(parking.state.counts(parking.queue)?.visible == 6)
    try parking.excise(4, 15, in: 1)
    #expect(try parking.drawn([(3, 64), (4, 64), (5, 64)]) == [3, 5])
  }

  @Test func stayWhenTheLastOfARunIsTakenOutAndTheRestIsCopied() throws {
    var parking = try Parking()
    try parking.park(3...5, in: 1)
    try parking.excise(5, 6, in: 1)
    try parking.copy(3, 7, to: 2)
    try parking.copy(4, 8, to: 2)
    #expect(try parking.drawn([(3, 72), (4, 72)]) == [3, 4])
    #expect(throws: RecordError.self) { try parking.excise(5, 9, in: 2) }
    #expect(throws: RecordError.self) { try parking.excise(3, 9, in: 1) }
  }
}
