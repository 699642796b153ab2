// SPDX-License-Identifier: Apache-2.0
import Foundation
import PenstockCore
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// Stores as each version wrote them, kept in `Fixtures`; its README says how they were made.
@Suite struct GoldenStores {
  private static func fixture(_ version: Int) -> URL {
    URL(fileURLWithPath: #filePath)
      .deletingLastPathComponent().appendingPathComponent("Fixtures/version-\(version)")
  }

  private static let newest = StoreFileName.segment(LSN(5))

  private static func files(_ version: Int) -> [String] {
    let common = [
      StoreFileName.store, StoreFileName.segment(LSN(1)), StoreFileName.segment(LSN(2)), newest,
    ]
    switch version {
    case 1: return common
    case 2: return common + [StoreFileName.head]
    default:
      return common + [StoreFileName.head, StoreFileName.checkpoint(checkpoint(version)), index]
    }
  }

  /// Before version 4 a checkpoint came between segments.
  private static func checkpoint(_ version: Int) -> LSN { version == 3 ? LSN(4) : LSN(6) }
  private static let index = StoreFileName.index(LSN(2))

  /// By LSN: two of the first run, one of no bytes, and three of the second run.
  private static let payloads: [UInt64: [UInt8]] = [
    2: Array("first".utf8), 3: Array("unsynced".utf8), 4: [],
    5: Array("second run".utf8), 6: (0...255).map { UInt8($0) }, 7: Array("last".utf8),
  ]

  /// A state with something of everything: places in use, free ones and ones that wait to be
  /// freed, leases, a delay, runs in two segments, a copy.
  private static func state() throws -> State {
    var state = State()
    var lsn: UInt64 = 100
    func apply(_ record: Record, _ queue: UInt32, size: Int = 64) throws {
      lsn += 1
      let time = Timestamp(milliseconds: 1_700_000_000_000 + Int64(lsn) * 10)
      try state.apply(
        Entry(queue: QueueID(queue), time: time, record: record), lsn: lsn,
        position: (lsn / 16) << 32 | (lsn % 16) * 128, size: size)
    }
    func sent(_ visibleAt: Int64? = nil, isParked: Bool = false) -> Record {
      let id = MessageID(randomHigh: lsn, randomLow: 1)
      return .sent(
        .init(
          id: id, visibleAt: visibleAt.map { Timestamp(milliseconds: $0) }, isParked: isParked))
    }
    try apply(.queueCreated(name: "orders", settings: QueueSettings()), 1)
    try apply(.queueCreated(name: "Grüße", settings: QueueSettings(delay: .seconds(5))), 2)
    for _ in 0..<24 { try apply(sent(), 2) }
    let first = lsn + 1
    for number in 0..<6 { try apply(sent(), 1, size: 64 << number) }
    try apply(sent(1_800_000_000_000), 1)
    for _ in 0..<20 { try apply(sent(isParked: true), 1) }
    let deadline = Timestamp(milliseconds: 1_700_000_900_000)
    for slot in UInt32(24)..<26 {
      try apply(.leased(message: first + UInt64(slot - 24), slot: slot, deadline: deadline), 1)
    }
    try apply(.deleted(message: first + 2, slot: 26), 1)
    let id = MessageID(randomHigh: 1, randomLow: 1)
    try apply(.moved(.init(id: id, message: first + 3, slot: 27)), 1)
    try apply(.moved(.init(id: id, message: first + 7, slot: nil)), 1, size: 72)
    try apply(.purged, 2)
    return state
  }

  private static func bytes(of state: State) -> [UInt8] {
    var bytes: [UInt8] = []
    state.encode(CommitBuffer(capacity: 4096)) { buffer in
      bytes += buffer.withBytes { $0.array }
      buffer.removeAll()
    }
    return bytes
  }

  /// Waiting messages of two queues, with a row of copies; more than a block of one.
  private static let waiting: [(queue: UInt32, entry: WaitingMessage, isCopy: Bool)] =
    (0..<300).map { (number: UInt32) in
      (
        number % 9 == 0 ? 8 : 1,
        WaitingMessage(
          message: UInt64(1000 + number * number), offset: 4096 + number * 160, size: 160,
          sentSecond: 1_700_000_000 + number / 3), false
      )
    } + [
      (1, .init(message: 12, offset: 60_000, size: 48, sentSecond: 1_699_999_999), true),
      (1, .init(message: 7, offset: 60_048, size: 4096, sentSecond: 1_699_999_990), true),
    ]

  /// Writes the store as the fixtures were written.
  private static func write(_ disk: SimulatedFileSystem) throws {
    var session = try open(disk, seed: 2024)
    try session.prepare()
    try session.commit(payloads[2] ?? [])
    try session.commit(payloads[3] ?? [], synced: false)
    try session.commit(payloads[4] ?? [])
    try session.log.seal()
    session.log.close()
    session = try open(disk, seed: 2025)
    try session.prepare()
    try session.append(payloads[5] ?? [])
    try session.append(payloads[6] ?? [])
    try session.commit()
    try session.commit(payloads[7] ?? [])
    try session.heartbeat()
    let body = bytes(of: try state())
    try session.log.writeCheckpoint(lsn: checkpoint(Int(LogFormat.version)), ordinal: 2) {
      (buffer, flush) throws(SystemError) in
      for part in [body[..<100], body[100...]] {
        buffer.put(Array(part))
        try flush(buffer)
      }
    }
    var index = SegmentIndex()
    for (queue, entry, isCopy) in waiting { index.append(entry, queue: queue, isCopy: isCopy) }
    try session.log.writeIndex(index, of: 1)
    disk.kill()
  }

  /// The bytes that are kept: without the zeros at the end of the newest segment.
  private static func kept(_ disk: SimulatedFileSystem, _ name: String) throws -> [UInt8] {
    var bytes = try #require(disk.contents(of: path(name)))
    if name == newest { while bytes.last == 0 { bytes.removeLast() } }
    return bytes
  }

  private static func load(_ version: Int) throws -> SimulatedFileSystem {
    let disk = SimulatedFileSystem()
    try disk.createDirectory(directory)
    for name in files(version) {
      var bytes = Array(try Data(contentsOf: fixture(version).appendingPathComponent(name)))
      if name == newest { bytes += [UInt8](repeating: 0, count: segmentSize - bytes.count) }
      disk.replace(path(name), with: bytes)
    }
    return disk
  }

  @Test(arguments: [1, 2, 3, 4, 5, 6]) func opensAndReplaysItsRecords(_ version: Int) throws {
    let session = try open(try Self.load(version))
    #expect(session.found.payloads == Self.payloads)
    #expect(session.found.lastLSN == 7)
    #expect(session.found.end == .clean)
    #expect(session.recovery.segments == 3)
    #expect(session.recovery.records == 7)
    #expect(session.recovery.unknownFiles == [])
    #expect(session.log.storeFile.version == UInt32(version))
    #expect(session.log.storeFile.createdAt == 1_700_000_000_000)
  }

  /// The state in its checkpoint is the one that was written, and replay goes on behind it.
  @Test(arguments: [3, 4, 5, 6]) func goesOnFromItsCheckpoint(_ version: Int) throws {
    var options = LogOptions()
    options.segmentSize = segmentSize
    var restored: State?
    var replayed: [UInt64: [UInt8]] = [:]
    let opened = try SegmentedLog.open(
      directory: directory, options: options, fileSystem: try Self.load(version),
      random: StableRandom(seed: 7), clock: SimulatedClock(),
      restore: { body in
        restored = try? State(body)
        return restored == nil ? "no state" : nil
      }
    ) { (place, payload) throws(LogError) in
      if !place.isInCheckpoint { replayed[place.lsn.value] = payload.array }
    }
    #expect(opened.recovery.checkpoint == Self.checkpoint(version))
    #expect(opened.recovery.records == UInt64(replayed.count))
    #expect(opened.recovery.damagedCheckpoints == [])
    #expect(opened.recovery.replayedSegments == 1 && opened.recovery.segments == 3)
    #expect(replayed == Self.payloads.filter { $0.key > Self.checkpoint(version).value })
    let state = try #require(restored)
    #expect(state.brokenInvariant() == nil)
    // A constant: the state means what it meant when it was written.
    #expect(state.stateHash() == 9_494_885_461_054_685_956)
    #expect(try state.stateHash() == Self.state().stateHash())
    #expect(state.liveCount == 26 && state.parkedCount == 20)
    for queue in [UInt32(1), 8] {
      let found = try opened.log.waiting(
        in: 1, queue: queue, from: 0, through: .max, limit: .max)
      let expected = Self.waiting.filter { $0.queue == queue }.map(\.entry)
      #expect(found == expected.sorted { $0.message < $1.message })
    }
    opened.log.close()
  }

  /// What is written to an older store is of this version; `STORE` stays, and `HEAD` is not added.
  @Test(arguments: [1, 2, 3, 4, 5, 6]) func goesOn(_ version: Int) throws {
    let disk = try Self.load(version)
    let store = disk.contents(of: path(StoreFileName.store))
    var session = try open(disk)
    try session.prepare()
    let lsn = try session.append(payload(1)).lsn.value
    #expect(lsn == PenstockLogTests.lsn(afterLossAt: 7))
    try session.commit()
    #expect(disk.contents(of: segment(lsn))?[8] == LogFormat.version)
    for isClosed in [false, true] {
      let again = try open(disk.opened())
      #expect(again.found.payloads == Self.payloads.merging([lsn: payload(1)]) { $1 })
      #expect(again.found.end == (isClosed ? .sealed : .clean))
      if !isClosed { try session.log.seal() }
    }
    #expect(disk.contents(of: path(StoreFileName.store)) == store)
    #expect((disk.contents(of: headFile) == nil) == (version == 1))
  }

  /// Later rules hold for the segments that were written by them, in a store of version 1, too.
  @Test func aTruncatedSegmentOfVersion2InAStoreOfVersion1IsRefused() throws {
    let disk = try Self.load(1)
    var session = try open(disk)
    try session.prepare()
    let frame = try session.commit(payload(1))
    disk.kill()
    disk.edit(segment(frame.firstLSN)) { $0.removeLast(LogFormat.sectorSize) }
    #expect(damage(disk).map { path($0.file) } == segment(frame.firstLSN))
  }

  /// A recovery of version 1 cut the file before it wrote the seal.
  @Test func aCutSegmentOfVersion1IsACleanEnd() throws {
    let disk = try Self.load(1)
    let bytes = try #require(disk.contents(of: path(Self.newest)))
    let end = try #require(bytes.lastIndex { $0 != 0 }) + 1
    disk.edit(path(Self.newest)) { $0.removeLast($0.count - roundUp(end, to: 64)) }
    let session = try open(disk)
    #expect(session.found.end == .clean)
    #expect(session.found.payloads == Self.payloads)
    #expect(try reopened(disk).found.end == .sealed)
  }

  /// Says whether the format moved without a new version. With `PENSTOCK_WRITE_FIXTURES=1` in the
  /// environment, writes the fixture anew.
  @Test func thisVersionStillWritesTheSameBytes() throws {
    let version = Int(LogFormat.version)
    let disk = SimulatedFileSystem()
    try Self.write(disk)
    let isWriting = ProcessInfo.processInfo.environment["PENSTOCK_WRITE_FIXTURES"] == "1"
    if isWriting {
      try FileManager.default.createDirectory(
        at: Self.fixture(version), withIntermediateDirectories: true)
    }
    for name in Self.files(version) {
      let url = Self.fixture(version).appendingPathComponent(name)
      let bytes = try Self.kept(disk, name)
      if isWriting { try Data(bytes).write(to: url) }
      let golden = Array(try Data(contentsOf: url))
      #expect(golden == bytes, "\(name) differs")
    }
  }
}
