// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

/// Where the tests keep their log.
let directory = "/store"

func path(_ name: String) -> String { directory + "/" + name }

/// The smallest segment, so that a roll needs few bytes.
let segmentSize = LogFormat.minimumSegmentSize

/// The name of the segment that begins with an LSN.
func segment(_ first: UInt64) -> String { path(StoreFileName.segment(LSN(first))) }

/// The file `HEAD` of the store.
let headFile = path(StoreFileName.head)

/// The first LSN that is given out after a run whose last record on disk was `last` ended without a
/// seal.
func lsn(afterLossAt last: UInt64) -> UInt64 { last + (1 << 28) + 1 }

extension SegmentedLog {
  /// Reads with nothing at hand.
  func read<Result>(
    _ position: LogPosition, _ body: (RawSpan) throws(LogError) -> Result
  ) throws(LogError) -> Result {
    var window = ReadWindow()
    return try read(position, &window, body)
  }
}

/// A payload that no other record of the test has.
func payload(_ number: Int, size: Int = 16) -> [UInt8] {
  let random = StableRandom(seed: UInt64(number))
  let varied = (0..<min(size, 16)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
  return varied + [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: size - varied.count)
}

/// What an opening found.
struct Found: Equatable {
  /// Payloads by LSN; without LSN 1, which is the log's own.
  var payloads: [UInt64: [UInt8]] = [:]
  /// Of the last record.
  var lastLSN: UInt64 = 0
  var isAscending = true
  var end = LogRecovery.End.created
}

/// An open log and what its opening found.
struct Session {
  var log: SegmentedLog
  var tail: LogTail
  var recovery: LogRecovery
  var found: Found
}

/// Opens the log and collects what it replays.
func open(
  _ disk: any FileSystem, seed: UInt64 = 7, segmentSize: Int = segmentSize,
  recentBytes: Int = LogOptions().recentBytes
) throws(LogError) -> Session {
  var options = LogOptions()
  options.segmentSize = segmentSize
  options.recentBytes = recentBytes
  var found = Found()
  let opened = try SegmentedLog.open(
    directory: directory, options: options, fileSystem: disk, random: StableRandom(seed: seed),
    clock: SimulatedClock()
  ) { (record, span) throws(LogError) in
    if record.lsn.value <= found.lastLSN { found.isAscending = false }
    found.lastLSN = record.lsn.value
    if record.lsn.value > 1 { found.payloads[record.lsn.value] = span.array }
  }
  found.end = opened.recovery.end
  return Session(log: opened.log, tail: opened.tail, recovery: opened.recovery, found: found)
}

/// Opens a second time after the process died, on a copy.
func reopened(_ disk: SimulatedFileSystem, seed: UInt64 = 8) throws(LogError) -> Session {
  let copy = disk.copy()
  copy.kill()
  return try open(copy, seed: seed)
}

/// The error of an opening that must be refused, and nil if it is not.
func refusal(_ disk: any FileSystem) -> LogError? {
  do throws(LogError) {
    _ = try open(disk)
    return nil
  } catch { return error }
}

/// Where an opening saw damage; nil if it saw none.
func damage(_ disk: any FileSystem) -> LogError.Damage? {
  guard case .corrupted(let damage) = refusal(disk) else { return nil }
  return damage
}

struct NoRoom: Error {
  var room: LogTail.Room
}

extension Session {
  /// Appends one record to the open batch.
  @discardableResult
  mutating func append(
    _ payload: [UInt8], synced: Bool = true, keepingReserve: Bool = false
  ) throws(NoRoom) -> (lsn: LSN, position: LogPosition) {
    let size = LogFormat.recordSize(payload: payload.count)
    let room = tail.makeRoom(size, for: keepingReserve ? .send : .upkeep)
    guard case .ready = room else { throw NoRoom(room: room) }
    return tail.append(payload: payload.count, synced: synced) { $0.put(payload) }
  }

  /// Writes what was appended and syncs if something of it asks for that. Returns the frames'
  /// places.
  @discardableResult
  mutating func commit() throws(SystemError) -> [Placed] {
    let batches = tail.takeBatches()
    var placed: [Placed] = []
    for batch in batches {
      placed.append(Placed(batch))
      try log.write(batch)
    }
    for batch in batches { tail.wrote(batch) }
    if batches.contains(where: { $0.isSynced }) { tail.synced(upTo: try log.sync()) }
    return placed
  }

  /// One record in a frame of its own.
  @discardableResult
  mutating func commit(_ payload: [UInt8], synced: Bool = true) throws -> Placed {
    try append(payload, synced: synced)
    let placed = try commit().first
    return try #require(placed)
  }

  @discardableResult
  mutating func heartbeat() throws -> Placed {
    let taken = tail.takeHeartbeat()
    let batch = try #require(taken)
    let placed = Placed(batch)
    try log.write(batch)
    tail.wrote(batch)
    return placed
  }

  mutating func prepare() throws(SystemError) {
    if try log.prepareSegment(isCancelled: { false }) { tail.prepared() }
  }
}

/// A new log with one prepared segment.
func newLog(_ disk: SimulatedFileSystem) throws -> Session {
  var session = try open(disk, seed: 1)
  try session.prepare()
  return session
}

/// Where a frame was written.
struct Placed: Hashable {
  var segment: UInt32
  var offset: Int
  /// To the end of its records.
  var length: Int
  var extent: Int
  var firstLSN: UInt64
  var count: Int

  init(_ batch: Batch) {
    segment = batch.segment
    offset = batch.offset
    extent = batch.buffer.count
    length = LogFormat.frameHeaderSize + batch.recordBytes
    firstLSN = batch.firstLSN.value
    count = batch.count
  }

  var end: Int { offset + extent }
  /// Where the records end and the padding begins.
  var recordsEnd: Int { offset + length }
}

/// Every file of the directory with its bytes.
func snapshot(_ disk: SimulatedFileSystem) throws -> [String: [UInt8]] {
  var files: [String: [UInt8]] = [:]
  for name in try disk.list(directory) { files[name] = disk.contents(of: path(name)) }
  return files
}

extension SimulatedFileSystem {
  /// Changes a file's bytes, durably.
  func edit(_ path: String, _ change: (inout [UInt8]) -> Void) {
    guard var bytes = contents(of: path) else { return }
    change(&bytes)
    replace(path, with: bytes)
  }
}

extension [UInt8] {
  /// Overwrites the bytes from `offset` on.
  mutating func put(_ bytes: [UInt8], at offset: Int) {
    replaceSubrange(offset..<offset + bytes.count, with: bytes)
  }

  mutating func zero(from offset: Int, to end: Int? = nil) {
    let end = end ?? count
    if offset < end {
      replaceSubrange(offset..<end, with: repeatElement(0, count: end - offset))
    }
  }

  mutating func flip(bit: Int) { self[bit / 8] ^= 1 << UInt8(bit % 8) }

  func u32(at offset: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 | UInt32(self[offset + $1]) << UInt32(8 * $1) }
  }

  func u64(at offset: Int) -> UInt64 {
    UInt64(u32(at: offset)) | UInt64(u32(at: offset + 4)) << 32
  }
}
