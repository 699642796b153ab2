// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

private let usable = segmentSize - LogFormat.sealReserve
private let reserve = newTail(prepared: 0).reserve

private func newTail(prepared: Int) -> LogTail {
  var tail = LogTail(lastLSN: LSN(1), nextSegment: 1, segmentSize: segmentSize)
  for _ in 0..<prepared { tail.prepared() }
  return tail
}

extension LogTail {
  /// Appends if there is room; what `makeRoom` said.
  fileprivate mutating func add(
    _ payload: [UInt8], synced: Bool, keepingReserve: Bool
  ) -> (room: Room, position: LogPosition?) {
    let size = LogFormat.recordSize(payload: payload.count)
    let room = makeRoom(size, for: keepingReserve ? .send : .upkeep)
    guard case .ready = room else { return (room, nil) }
    return (room, append(payload: payload.count, synced: synced) { $0.put(payload) }.position)
  }
}

@Suite struct PlacesOfBatches {
  /// What one run of random appends gave out.
  private struct Run {
    var tail = newTail(prepared: 0)
    var lastEnd: (segment: UInt32, offset: Int) = (0, usable)
    var nextLSN: UInt64 = 2
    var positions: [(position: LogPosition, payload: [UInt8])] = []
    var prepared = 0

    /// I2, I3, and every record where its position says.
    mutating func check(_ batches: [Batch]) {
      for batch in batches {
        let end = batch.offset + batch.buffer.count
        if batch.segment == lastEnd.segment {
          #expect(batch.offset == lastEnd.offset, "without gap, without overlap")
        } else {
          #expect(batch.segment == lastEnd.segment + 1)
          #expect(batch.offset == LogFormat.segmentHeaderSize)
        }
        // A heartbeat may stand in the seal's reserve.
        #expect(end <= usable + (batch.count == 0 ? LogFormat.frameHeaderSize : 0))
        #expect(end.isMultiple(of: batch.isSynced ? LogFormat.sectorSize : 64))
        #expect(batch.firstLSN.value == nextLSN)
        nextLSN += UInt64(batch.count)
        lastEnd = (batch.segment, end)
        let bytes = batch.buffer.withBytes { $0.array }
        for _ in 0..<batch.count {
          let (position, payload) = positions.removeFirst()
          #expect(position.segment == batch.segment)
          let start = Int(position.offset) - batch.offset + LogFormat.recordHeaderSize
          #expect(Array(bytes[start..<start + payload.count]) == payload)
        }
        tail.wrote(batch)
      }
      let taken = Int(lastEnd.segment) + tail.preparedAhead
      #expect(taken <= prepared, "only where a segment lies ready")
    }

    mutating func append(_ number: Int, _ random: StableRandom) {
      let size = random.chance(1, of: 8) ? random.below(20_000) : random.below(300)
      let payload = payload(number, size: size)
      let (room, position) = tail.add(
        payload, synced: random.chance(1, of: 2), keepingReserve: random.chance(2, of: 3))
      switch room {
      case .ready: if let position { positions.append((position, payload)) }
      case .wait: #expect(!tail.isShortOfSpace)
      case .full: #expect(tail.isShortOfSpace)
      }
    }
  }

  @Test(arguments: 0..<60 as Range<UInt64>)
  func followEachOtherWithoutGapAndStayInTheirSegment(_ seed: UInt64) {
    let random = StableRandom(seed: seed)
    var run = Run()
    for number in 0..<150 {
      switch random.below(12) {
      case 0:
        run.tail.prepared()
        run.prepared += 1
      case 1: run.tail.isShortOfSpace = true
      case 2: run.tail.requireSync()
      case 3, 4:
        run.check(run.tail.takeBatches())
        if random.chance(1, of: 2) { run.tail.synced(upTo: run.tail.writtenLSN) }
      case 5:
        if let batch = run.tail.takeHeartbeat() {
          #expect(batch.count == 0)
          run.check([batch])
        }
      default: run.append(number, random)
      }
      #expect(run.tail.durableLSN <= run.tail.writtenLSN)
      #expect(run.tail.writtenLSN < run.tail.nextLSN)
    }
    run.check(run.tail.takeBatches())
    #expect(run.positions.isEmpty)
    #expect(run.tail.nextLSN.value == run.nextLSN)
  }

  @Test func aTailWithoutAPreparedSegmentHasNoRoom() {
    var tail = newTail(prepared: 0)
    guard case .wait = tail.makeRoom(8, for: .upkeep) else {
      Issue.record("room without a segment")
      return
    }
    tail.isShortOfSpace = true
    guard case .full = tail.makeRoom(8, for: .upkeep) else {
      Issue.record("room without a segment")
      return
    }
  }

  @Test func theLargestGroupFitsAndALargerOneDoesNot() {
    let largest = LogTail.maximumGroupSize(segmentSize: segmentSize)
    var tail = newTail(prepared: 1)
    guard case .ready = tail.makeRoom(largest, for: .send) else {
      Issue.record("the largest group does not fit")
      return
    }
    tail = newTail(prepared: 1)
    guard case .wait = tail.makeRoom(largest + 2 * LogFormat.sectorSize, for: .send)
    else {
      Issue.record("there is room for more")
      return
    }
  }
}

@Suite struct ReserveForDraining {
  /// Sends leave half a segment; records that drain use it to the last sector.
  @Test(arguments: [1, 2, 3]) func isKeptBySendsAndUsedByDrains(_ prepared: Int) {
    var tail = newTail(prepared: prepared)
    tail.isShortOfSpace = true
    var used = 0
    while case .ready = tail.add(payload(1), synced: true, keepingReserve: true).room {
      for batch in tail.takeBatches() {
        used += batch.buffer.count
        tail.wrote(batch)
      }
    }
    let all = prepared * (usable - LogFormat.segmentHeaderSize)
    #expect(all - used >= reserve)
    #expect(all - used < reserve + 2 * LogFormat.sectorSize)

    var drains = 0
    while case .ready = tail.add(payload(1), synced: true, keepingReserve: false).room {
      for batch in tail.takeBatches() { tail.wrote(batch) }
      drains += 1
    }
    #expect(drains == (all - used) / LogFormat.sectorSize)
  }

  @Test func isThereAgainWithTheNextSegment() {
    var tail = newTail(prepared: 1)
    while case .ready = tail.add(payload(1), synced: true, keepingReserve: true).room {}
    tail.isShortOfSpace = true
    tail.prepared()
    #expect(!tail.isShortOfSpace)
    guard case .ready = tail.add(payload(1), synced: true, keepingReserve: true).room else {
      Issue.record("no room in spite of a new segment")
      return
    }
  }

  @Test func sendsWaitWhileTooMuchIsUnwritten() {
    let large = 128 << 20
    var tail = LogTail(lastLSN: LSN(1), nextSegment: 1, segmentSize: large)
    tail.prepared()
    let bytes = [UInt8](repeating: 1, count: 1 << 20)
    var sent = 0
    while case .ready = tail.add(bytes, synced: true, keepingReserve: true).room { sent += 1 }
    #expect(sent == 15)
    guard case .ready = tail.makeRoom(64, for: .upkeep) else {
      Issue.record("draining waits too")
      return
    }
    let batches = tail.takeBatches()
    #expect(batches.count > 1)
    for batch in batches { tail.wrote(batch) }
    guard case .ready = tail.makeRoom(64, for: .send) else {
      Issue.record("still waiting")
      return
    }
  }
}

@Suite struct Heartbeats {
  @Test func comeOnceAfterASyncThatNoFrameCarries() throws {
    let disk = SimulatedFileSystem()
    var session = try newLog(disk)
    #expect(!session.tail.needsHeartbeat, "nothing is durable that no frame carries")
    try session.commit(payload(1), synced: false)
    #expect(!session.tail.needsHeartbeat, "nothing was synced")
    try session.commit(payload(2))
    #expect(session.tail.needsHeartbeat)
    try session.append(payload(3))
    #expect(!session.tail.needsHeartbeat, "a frame is on its way")
    try session.commit()
    try session.heartbeat()
    #expect(!session.tail.needsHeartbeat)
    #expect(try reopened(disk).found.lastLSN == 4)
  }

  @Test func doNotBeginASegment() throws {
    let disk = SimulatedFileSystem()
    var session = try newLog(disk)
    let room = usable - LogFormat.segmentHeaderSize - LogFormat.frameHeaderSize - 8
    try session.commit(payload(1, size: room))
    #expect(session.tail.needsHeartbeat, "the seal's reserve has room for it")
    let placed = try session.heartbeat()
    #expect(placed.segment == 1)
    #expect(!session.tail.needsHeartbeat)
  }
}

@Suite struct Reads {
  let disk = SimulatedFileSystem()

  @Test(arguments: [0, 1, 7, 8, 4087, 4088, 4089, 20_000]) func giveWhatWasAppended(_ size: Int)
    throws
  {
    var session = try newLog(disk)
    try session.append(payload(1, size: 5))
    let (_, position) = try session.append(payload(2, size: size))
    try session.append(payload(3, size: 5))
    try session.commit()
    #expect(try session.log.read(position) { $0.array } == payload(2, size: size))
    let again = try reopened(disk)
    #expect(try again.log.read(position) { $0.array } == payload(2, size: size))
    #expect(LogPosition(packed: position.packed) == position)
  }

  @Test func refuseEveryFlippedBit() throws {
    var session = try newLog(disk)
    let (_, position) = try session.append(payload(1, size: 20))
    try session.commit()
    // One that did not write the record: who did has it at hand.
    disk.kill()
    session = try open(disk)
    let start = Int(position.offset) * 8
    for bit in start..<start + 28 * 8 {
      disk.flipBit(bit, in: segment(2))
      #expect(throws: LogError.self) { try session.log.read(position) { $0.array } }
      disk.flipBit(bit, in: segment(2))
    }
    disk.setUnreadable([UInt64(position.offset)..<UInt64(position.offset) + 1], in: segment(2))
    do throws(LogError) {
      _ = try session.log.read(position) { $0.array }
      Issue.record("an unreadable record was read")
    } catch {
      guard case .system = error else {
        Issue.record("a read error was taken for damage")
        return
      }
    }
  }

  @Test func refuseASegmentThatIsNotThere() throws {
    let session = try newLog(disk)
    #expect(throws: LogError.self) {
      try session.log.read(LogPosition(segment: 7, offset: 4096)) { $0.array }
    }
  }
}

@Suite struct GrowingReserve {
  @Test func growsWithTheMessagesUpToEightSegments() {
    var tail = newTail(prepared: 0)
    let least = tail.reserve
    tail.keepReserve(messages: 1)
    #expect(tail.reserve == least)
    tail.keepReserve(messages: 20)
    #expect(tail.reserve > least)
    // Each message can be leased and deleted alone: a frame of 128 bytes and a synced one.
    #expect(tail.reserve >= 20 * (LogFormat.sectorSize + 128))
    tail.keepReserve(messages: .max)
    #expect(tail.reserve <= LogTail.largestReserve * usable)
    tail.keepReserve(messages: 0)
    #expect(tail.reserve == least)
  }

  @Test func asksForSegmentsUntilItIsThere() {
    var tail = newTail(prepared: 0)
    tail.keepReserve(messages: 100)
    var count = 0
    while tail.needsSegment, count < 100 {
      tail.prepared()
      count += 1
    }
    #expect(count > 1 && count < 100)
  }
}
