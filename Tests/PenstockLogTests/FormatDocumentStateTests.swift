// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// The tables of checkpoints, of the state in them, and of indexes.
extension FormatDocument {
  @Test func theHeaderOfACheckpoint() throws {
    let bytes = encoded { sampleCheckpoint().write(into: $0) }
    try check(
      "Checkpoint", bytes,
      [
        "magic": Array("PNSKCKPT".utf8), "version": little(UInt32(LogFormat.version)),
        "store high": little(0x0102_0304_0506_0708), "store low": little(0x1112_1314_1516_1718),
        "last LSN": little(0x0021_2223_2425_2627), "first LSN": little(0x0031_3233_3435_3637),
        "ordinal": little(UInt32(0x0142_4344)), "previous": little(UInt32(0x5152_5354)),
        "checksum": little(bytes.dropLast(4).array.withRaw { CRC32C.of($0) }),
      ])
  }

  @Test func theChunksOfACheckpoint() throws {
    let disk = SimulatedFileSystem()
    try disk.createDirectory(directory)
    let chunk = payload(1, size: 40)
    let name = try writeCheckpoint(sampleCheckpoint(), [chunk, payload(2, size: 3)], to: disk)
    let bytes = try #require(disk.contents(of: path(name)))
    try check(
      "Chunk", Array(bytes[64..<112]),
      [
        "length": little(UInt32(40)), "checksum": little(chunk.withRaw { CRC32C.of($0) }),
        "bytes": chunk,
      ])
    // The last one has the length 0 and eight bytes: of all chunks.
    #expect(Array(bytes[123..<127]) == [0, 0, 0, 0])
    #expect(Array(bytes[131...]) == little(UInt64(43)))
    #expect(bytes[127..<131].array == little(little(UInt64(43)).withRaw { CRC32C.of($0) }))
  }

  // MARK: The state

  private func bytes(of state: State) -> [UInt8] {
    var bytes: [UInt8] = []
    state.encode(CommitBuffer(capacity: 4096)) { buffer in
      bytes += buffer.withBytes { $0.array }
      buffer.removeAll()
    }
    return bytes
  }

  private static let created: Int64 = 0x0181_1213_1415
  private static let queue = QueueID(0x0102_0304)

  /// A state with one queue, and a way to add records to it.
  private func newState() throws -> (State, (inout State, UInt64, Record) throws -> Void) {
    func apply(
      _ state: inout State, _ lsn: UInt64, _ record: Record
    ) throws {
      let entry = Entry(
        queue: Self.queue, time: Timestamp(milliseconds: Self.created + Int64(lsn)), record: record)
      try state.apply(entry, lsn: lsn, position: 0x0001_0203_0405_0608, size: 0x0180)
    }
    var state = State()
    try apply(&state, 2, .queueCreated(name: "orders", settings: settings))
    return (state, apply)
  }

  private func sent(_ lsn: UInt64, isParked: Bool = false) -> Record {
    .sent(
      .init(id: MessageID(randomHigh: lsn, randomLow: 1), visibleAt: nil, isParked: isParked))
  }

  @Test func theHeadOfAState() throws {
    var (state, apply) = try newState()
    for lsn in UInt64(3)..<23 { try apply(&state, lsn, sent(lsn)) }
    for slot in UInt32(4)..<6 {
      try apply(&state, 23 + UInt64(slot), .deleted(message: UInt64(slot) + 3, slot: slot))
    }
    try apply(&state, 40, .purged)
    let bytes = bytes(of: state)
    let rest = Array(bytes.dropFirst(24))
    try check(
      "State", bytes,
      [
        "time": little(Self.created + 40), "next queue": little(Self.queue.value + 1),
        "places": little(UInt32(20)), "free": little(UInt32(2)), "dying": little(UInt32(18)),
        "lists and queues": rest,
      ])
    // The place that was freed last is the first to be given out.
    #expect(Array(rest[..<8]) == little(UInt32(5)) + little(UInt32(4)))
    let dying = (0..<18).map { rest.u32(at: 8 + $0 * 24) }
    #expect(dying == Array(0...3) + Array(6...19))
    #expect(Array(rest[(8 + 18 * 24)...].prefix(8)) == little(UInt32(1)) + little(Self.queue.value))
  }

  @Test func aQueueOfAState() throws {
    var (state, apply) = try newState()
    try apply(&state, 0x77, .queueChanged(settings: settings))
    try apply(&state, 0x81, .purged)
    for lsn in UInt64(0x82)...0x83 { try apply(&state, lsn, sent(lsn, isParked: true)) }
    for lsn in UInt64(0x84)...0x85 {
      try apply(&state, lsn, .setAside(message: lsn - 2, slot: nil, size: 0x0180))
    }
    // What had expired by the old retention stays so.
    var retention = settings
    retention.retention = .milliseconds(Self.created - 0x0099_0000_0000)
    try apply(&state, 0x86, .queueChanged(settings: retention))
    retention.retention = .milliseconds(0x7152_5354_5556)
    try apply(&state, 0x87, .queueChanged(settings: retention))
    let bytes = bytes(of: state)
    // Behind the head without places come the number of queues and the only queue.
    let queue = Array(bytes[28...])
    try check(
      "Queue of a state", queue.prefix(14).array,
      [
        "queue": little(Self.queue.value), "name length": little(UInt32(6)),
        "name": Array("orders".utf8),
      ])
    let rest = Array(queue.dropFirst(14))
    var values = settingValues
    values["retention"] = little(0x7152_5354_5556)
    let expired = UInt32((Self.created + 0x87 - (Self.created - 0x0099_0000_0000)) / 1000)
    try check(
      "Behind the name", rest,
      values.merging([
        "created at": little(Self.created + 2), "changed at": little(Self.created + 0x87),
        "purged before": little(UInt64(0x81)), "set aside": little(UInt64(2)),
        "expired through": little(expired), "runs": little(UInt32(0)),
        "runs and lists": [UInt8](repeating: 255, count: 8),
      ]) { $1 })
  }

  @Test func loadsOfAState() throws {
    var (state, apply) = try newState()
    try apply(&state, 0x20, .queueDeleted)
    let queue = QueueID(Self.queue.value + 1)
    let group = TextHash(high: 0x2122_2324, low: 0x3132_3334)
    let (id, start) = (MessageID(randomHigh: 5, randomLow: 6), Self.created)
    for (lsn, later, record) in [
      (0x21, 0, Record.queueCreated(name: "q", settings: QueueSettings())),
      (0x22, 0, .sent(.init(id: id, visibleAt: nil, group: group))),
      (0x23, 0, .sent(.init(id: id, visibleAt: nil, group: group))),
      (0x24, 0, .leased(message: 0x22, slot: 0, deadline: Timestamp(milliseconds: start * 2))),
      (0x25, 0x1234, .deleted(message: 0x22, slot: 0)),
    ] as [(UInt64, Int64, Record)] {
      let time = Timestamp(milliseconds: Self.created + 0x100 + later)
      _ = try state.apply(
        Entry(queue: queue, time: time, record: record), lsn: lsn, position: 8, size: 0x0180)
    }
    let section = Array(bytes(of: state).suffix(8 + 2 * 16))
    #expect(Array(section[..<8]) == little(UInt32(7)) + little(queue.value))
    let minute = (Self.created + 0x100 + 0x1234) / 60_000
    for load in [section[8..<24], section[24...]] {
      try check("Load", Array(load), ["amount": little(0x1234), "minute": little(minute)])
    }
  }

  @Test func aFIFOQueueOfAState() throws {
    var (state, apply) = try newState()
    try apply(&state, 0x20, .queueDeleted)
    var settings = settings
    settings.isFIFO = true
    settings.deduplicationWindow = .milliseconds(0x7172_7374)
    settings.deduplicatesByGroup = true
    let queue = QueueID(Self.queue.value + 1)
    let id = MessageID(randomHigh: 5, randomLow: 6)
    let group = TextHash(high: 0x2122_2324, low: 0x3132_3334)
    let repeated = TextHash(high: 0x4142_4344, low: 0x5152_5354)
    for (lsn, record) in [
      (0x21, Record.queueCreated(name: "q", settings: settings)),
      (0x22, .sent(.init(id: id, visibleAt: nil, group: group, deduplication: repeated))),
    ] as [(UInt64, Record)] {
      let time = Timestamp(milliseconds: Self.created + Int64(lsn))
      _ = try state.apply(
        Entry(queue: queue, time: time, record: record), lsn: lsn, position: 8, size: 0x0180)
    }
    // Behind the head, the only place, the only queue and its two empty lists.
    let bytes = Array(bytes(of: state).dropFirst(24 + 4 + 8 + 1 + 80 + 8))
    // The section of its settings: three numbers.
    let more = bytes.prefix(8 + 4 + 3 * 16).array
    #expect(Array(more[..<12]) == little(UInt32(1)) + little(queue.value) + little(UInt32(3)))
    let groups = Array(bytes.dropFirst(more.count))
    #expect(Array(groups[..<8]) == little(UInt32(2)) + little(queue.value))
    let rest = Array(groups.dropFirst(12))
    try check(
      "Groups", Array(groups.dropFirst(8)),
      ["count": little(UInt32(1)), "groups, row and sends": rest])
    #expect(Array(rest[..<16]) == little(group.high) + little(group.low))
    #expect(Array(rest[40..<44]) == [255, 255, 255, 255])
    try check(
      "Remembered send", Array(rest[52..<100]),
      [
        "hash high": little(repeated.high), "hash low": little(repeated.low),
        "id high": little(id.high), "id low": little(id.low), "message": little(UInt64(0x22)),
        "expires at": little(Self.created + 0x22 + 0x7172_7374),
      ])
    #expect(Array(rest[44..<52]) == little(UInt32(1)) + little(UInt32(0)))
    #expect(Array(rest[100...]) == [UInt8](repeating: 0, count: 48))
  }

  @Test func aStrayOfAState() throws {
    var (state, apply) = try newState()
    let (id, target) = (MessageID(randomHigh: 5, randomLow: 6), QueueID(Self.queue.value + 1))
    let created = Entry(
      queue: target, time: Timestamp(milliseconds: Self.created),
      record: .queueCreated(name: "dead", settings: QueueSettings()))
    try state.apply(created, lsn: 3, position: 0)
    try apply(&state, 4, .sent(.init(id: id, visibleAt: nil, priority: 0x33)))
    try apply(
      &state, 5,
      .transferred(.init(message: 4, slot: 0, target: target, reason: .receivedTooOften)))
    let rest = Array(bytes(of: state).suffix(50))
    #expect(
      Array(rest[..<8]) == little(UInt32(3)) + little(Self.queue.value),
      "the origin's section")
    #expect(Array(rest[8..<18]) == little(UInt32(6)) + Array("orders".utf8))
    #expect(Array(rest[18..<26]) == little(UInt32(4)) + little(UInt32(0)))
    try check(
      "Stray", Array(rest[26...]) + [],
      [
        "flags": little(UInt32(0x33)), "origin": little(Self.queue.value),
        "bytes queue": little(Self.queue.value), "reason": little(UInt32(1)),
        "moved at": little(Self.created + 5),
      ], mayRepeat: ["origin", "bytes queue"])
  }

  @Test func aTaskAndAnAttemptOfAState() throws {
    var (state, apply) = try newState()
    let id = MessageID(randomHigh: 0x21_2223, randomLow: 0x31_3233)
    try apply(
      &state, 3, .task(.init(id: id, event: .started, number: 7, count: 9, destination: "to")))
    try apply(&state, 4, .task(.init(id: id, event: .moved, count: 5)))
    let task = Array(bytes(of: state).suffix(70))
    #expect(Array(task[..<8]) == little(UInt32(5)) + little(Self.queue.value))
    try check(
      "Move task of a state", Array(task[8...]) + [],
      [
        "id high": little(id.high), "id low": little(id.low),
        "started at": little(Self.created + 3), "rate": little(UInt64(7)),
        "to move": little(UInt64(9)), "moved": little(UInt64(5)), "status": little(UInt64(1)),
        "length": little(UInt32(2)), "destination": Array("to".utf8),
      ])
    let fifo = QueueID(Self.queue.value + 1)
    let group = TextHash(high: 1, low: 2)
    let hash = TextHash(high: 0x41_4243, low: 0x51_5253)
    let deadline = Timestamp(milliseconds: Self.created + 0x5000)
    for (lsn, record) in [
      (5, Record.queueCreated(name: "fifo", settings: QueueSettings(isFIFO: true))),
      (6, .sent(.init(id: id, visibleAt: nil, group: group))),
      (7, .leased(message: 6, slot: 0, deadline: deadline)),
      (8, .attempted(hash, [.init(message: 6, slot: 0)])),
    ] as [(UInt64, Record)] {
      let time = Timestamp(milliseconds: Self.created + Int64(lsn))
      try state.apply(
        Entry(queue: fifo, time: time, record: record), lsn: lsn, position: 8, size: 40)
    }
    let attempt = Array(bytes(of: state).suffix(70 + 64).prefix(64))
    #expect(Array(attempt[..<8]) == little(UInt32(6)) + little(fifo.value))
    try check(
      "Attempt of a state", Array(attempt[8...]) + [],
      [
        "hash high": little(hash.high), "hash low": little(hash.low),
        "expires at": little(Self.created + 8 + 300_000), "count": little(UInt32(1)),
        "leases": little(UInt32(0)) + little(UInt64(6)) + little(UInt64(7))
          + little(deadline.milliseconds),
      ])
  }

  @Test func theRunsAndMessagesOfAState() throws {
    var (state, apply) = try newState()
    try apply(&state, 0x30, sent(0x30))
    try apply(&state, 0x31, sent(0x31))
    let deadline = Timestamp(milliseconds: Self.created + 0x5000)
    for lease in UInt64(0)..<3 {
      try apply(
        &state, 0x40 + lease * 0x1000, .leased(message: 0x30, slot: 0, deadline: deadline))
      if lease < 2 { state.advance(to: deadline) }
    }
    // The third lease is in the past by now: the message is visible again.
    for lsn in UInt64(0x6000)...0x6005 { try apply(&state, lsn * 0x1000, sent(1, isParked: true)) }
    let rest = Array(bytes(of: state).dropFirst(28 + 14 + 76))
    #expect(rest.u32(at: 0) == 1)
    let run = Array(rest[4..<44])
    let seconds = [UInt64(0x6000), 0x6005].map {
      UInt32((Self.created + Int64($0 * 0x1000) + 999) / 1000)
    }
    try check(
      "Run", run,
      [
        "segment": little(UInt32(0x0001_0203)), "count": little(UInt32(6)),
        "first": little(UInt64(0x600_0000)), "last": little(UInt64(0x600_5000)),
        "bytes": little(UInt64(6 * 0x0180)), "oldest second": little(seconds[0]),
        "newest second": little(seconds[1]),
      ])
    // The waiting message, the end of its list, the returned one and its activity, the end.
    let place = UInt64(0x0405_0608 / 8) | UInt64(0x0001_0203) << 27 | UInt64(0x0180 / 8) << 55
    let second = UInt32((Self.created + 0x30 + 999) / 1000)
    try check(
      "Message of a state", Array(rest[44..<68]),
      [
        "slot": little(UInt32(1)), "identity": little(UInt64(0x31) | 1 << 56),
        "place": little(place), "sent second": little(second),
      ])
    #expect(Array(rest[68..<72]) == [255, 255, 255, 255])
    #expect(
      Array(rest[72..<96]) == little(UInt32(0)) + little(UInt64(0x30) | 4 << 56)
        + little(place) + little(second))
    try check(
      "Activity", Array(rest[96..<132]),
      [
        "deadline": little(deadline.milliseconds),
        "leased at": little(Self.created + 0x2040),
        "first received at": little(Self.created + 0x40), "token": little(UInt64(0x2040)),
        "receive count": little(UInt32(3)),
      ])
    #expect(rest.count == 136 && Array(rest[132...]) == [255, 255, 255, 255])
  }

  // MARK: Indexes

  @Test func anIndex() throws {
    var index = SegmentIndex()
    for number in UInt64(0)..<3 {
      index.append(
        .init(
          message: 0x2122_2324_2526_2728 + number * 2, offset: 4096 + UInt32(number) * 48, size: 48,
          sentSecond: 0x5152_5354 - UInt32(number)), queue: 0x0a0b_0c0d, isCopy: false)
    }
    let bytes = index.encode(
      store: StoreID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718),
      ordinal: 0x0142_4344
    ).withBytes { $0.array }
    let body = Array(bytes[88...])
    var head = bytes[..<88].array
    head.put([0, 0, 0, 0], at: 40)
    try check(
      "Index", bytes[..<48].array,
      [
        "magic": Array("PNSKINDX".utf8), "version": little(UInt32(LogFormat.version)),
        "ordinal": little(UInt32(0x0142_4344)), "store high": little(0x0102_0304_0506_0708),
        "store low": little(0x1112_1314_1516_1718), "strips": Array(bytes[32..<36]),
        "blocks": Array(bytes[36..<40]), "checksum": little(head.withRaw { CRC32C.of($0) }),
      ], mayRepeat: ["strips", "blocks"])
    #expect(bytes.u32(at: 32) == 1 && bytes.u32(at: 36) == 1)
    try check(
      "Strip", bytes[48..<56].array,
      ["queue": little(UInt32(0x0a0b_0c0d)), "blocks": little(UInt32(1))])
    try check(
      "Block", bytes[56..<88].array,
      [
        "first": little(0x2122_2324_2526_2728), "last": little(0x2122_2324_2526_272c),
        "count": little(UInt32(3)), "bytes": little(UInt32(body.count)),
        "checksum": little(body.withRaw { CRC32C.of($0) }),
      ])
    // Differences to zeros, then to the entry before: LSN 2, 6 eights on, 6 eights long, one second
    // less, which is 1 in zigzag.
    #expect(Array(body.suffix(8)) == [2, 6, 6, 1, 2, 6, 6, 1])
    // 512 eights in seven bits a byte, the low ones first.
    #expect(Array(body[9..<12]) == [0x80, 0x04, 6])
  }
}
