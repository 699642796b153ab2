// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem
internal import Synchronization

/// The segment files of one store: writes batches, seals and rolls, prepares segments, reads
/// records.
///
/// `write`, `sync` and `seal` belong to one writer thread, `prepareSegment` to one background
/// thread; `read` may run anywhere beside them. After an error from `write`, `sync` or `seal` the
/// caller must not write again: what is on disk is then unknown, and only opening the store anew
/// tells (L2).
public final class SegmentedLog: Sendable {
  /// Where its files are.
  public let directory: String
  /// What store it is.
  public let storeFile: StoreFile
  let fileSystem: any FileSystem
  let segmentSize: Int
  let random: any RandomSource
  private let writer: Mutex<Writer>
  let catalog: Mutex<Catalog>
  let recent: Mutex<RecentFrames>
  private let lock: any FileLock

  private struct Writer {
    /// The segment being written; nil before the first write and after a seal.
    var file: (any File)?
    var segment: UInt32
    var salt: UInt64 = 0
    /// Chain value that the next frame, or the next segment's header, must carry.
    var chain: UInt32
    var end = 0
    var records: UInt64 = 0
    var lastLSN: LSN
    /// The last LSN of the newest frame that ends on a sector boundary. What lies behind it shares
    /// a sector with what comes next, so a sync says nothing lasting about it.
    var alignedLSN: LSN
    var durableLSN: LSN
    /// The file `HEAD`; nil in a store of version 1, which has none.
    let head: (any File)?
    /// The slot of `HEAD` that is written next.
    var headSlot: Int
    let scratch = CommitBuffer(capacity: 2 * LogFormat.segmentHeaderSize)
  }

  struct Catalog {
    var segments: [UInt32: SegmentInfo]
    /// Valid checkpoints, oldest first; two at most.
    var checkpoints: [KeptCheckpoint]
    /// The newest was read back, and stands alone: see `relyOnNewest`.
    var reliesOnNewest = false
    /// Files open for reading; at most `openFileLimit`.
    var files: [UInt32: any File] = [:]
    var indexes: [UInt32: SegmentIndexFile] = [:]
    var prepared: Deque<String> = Deque()
    private var numbers: UInt64

    init(_ recovered: RecoveredEnd, numbers: UInt64) {
      segments = recovered.segments
      checkpoints = recovered.checkpoints
      // Above those of the files that lie ready, so that no new one takes the place of one.
      self.numbers =
        recovered.prepared.compactMap { UInt64($0.prefix(16), radix: 16) }.max() ?? numbers
      for name in recovered.prepared { prepared.append(name) }
    }

    /// For the name of a file that is being made.
    mutating func nextNumber() -> UInt64 {
      numbers &+= 1
      return numbers
    }
  }

  static let openFileLimit = 64
  static let fillChunk = 1 << 20

  init(
    directory: String, storeFile: StoreFile, fileSystem: any FileSystem, options: LogOptions,
    random: any RandomSource, lock: any FileLock, recovered: RecoveredEnd
  ) {
    self.directory = directory
    self.storeFile = storeFile
    self.fileSystem = fileSystem
    segmentSize = options.segmentSize
    recent = Mutex(RecentFrames(most: options.recentBytes))
    self.random = random
    self.lock = lock
    writer = Mutex(
      Writer(
        file: nil, segment: recovered.nextOrdinal &- 1, chain: recovered.chain,
        lastLSN: recovered.lastLSN, alignedLSN: recovered.lastLSN,
        durableLSN: recovered.lastLSN, head: recovered.head, headSlot: recovered.headSlot))
    catalog = Mutex(Catalog(recovered, numbers: random.next()))
  }

  /// Segments that lie ready.
  public var preparedCount: Int { catalog.withLock { $0.prepared.count } }

  // MARK: Writing

  /// Writes one batch as a frame, in a new segment if the batch was placed there.
  ///
  /// - Durability: none; the bytes are with the operating system and survive the process. A roll
  ///   syncs the segment before it.
  /// - Ordering: batches must come in the order in which `LogTail` gave them out.
  public func write(_ batch: Batch) throws(SystemError) {
    try writer.withLock { (writer) throws(SystemError) in
      if writer.file == nil || writer.segment != batch.segment {
        try sealCurrent(&writer)
        try beginSegment(&writer, batch)
      }
      guard let file = writer.file else { return }
      precondition(writer.end == batch.offset, "batches are written in order")
      let buffer = batch.buffer
      let length = batch.length
      let bodyEnd = LogFormat.frameHeaderSize + batch.recordBytes
      let header = FrameHeader(
        kind: batch.count > 0 ? .records : .heartbeat, salt: writer.salt, firstLSN: batch.firstLSN,
        count: UInt32(batch.count), bodyLength: UInt32(batch.recordBytes),
        extent: UInt32(length), previous: writer.chain, durableLSN: writer.durableLSN,
        offset: UInt32(batch.offset),
        bodyChecksum: buffer.withBytes(LogFormat.frameHeaderSize..<bodyEnd) { CRC32C.of($0) })
      let chain = header.write(into: buffer)
      // Zeros over zeros up to a sector's end: a part of one would have to be read first.
      let padding = roundUp(batch.offset + length, to: LogFormat.sectorSize) - batch.offset - length
      buffer.putZeros(padding)
      try buffer.withBytes { (bytes) throws(SystemError) in
        if batch.isSynced {
          try file.writeThrough(bytes, at: UInt64(batch.offset))
        } else {
          try file.write(bytes, at: UInt64(batch.offset))
        }
      }
      buffer.removeLast(padding)
      recent.withLock {
        batch.spare = $0.keep(buffer, segment: batch.segment, at: batch.offset)
      }
      writer.chain = chain
      writer.end += length
      writer.records += UInt64(batch.count)
      if batch.count > 0 { writer.lastLSN = batch.lastLSN }
      if writer.end.isMultiple(of: LogFormat.sectorSize) { writer.alignedLSN = writer.lastLSN }
    }
  }

  /// Makes what was written durable, and returns up to which LSN it stays so: the end of the newest
  /// frame that was padded to a sector. Frames behind it may share a sector with later writes.
  ///
  /// - Complexity: one `fdatasync`.
  public func sync() throws(SystemError) -> LSN {
    try writer.withLock { (writer) throws(SystemError) in
      if let file = writer.file { try file.syncData() }
      writer.durableLSN = writer.alignedLSN
      return writer.durableLSN
    }
  }

  /// Ends the log of this run for good: a last frame, exact size, synced. Tells the next start that
  /// nothing is missing. Nothing may be written afterwards.
  public func seal() throws(SystemError) {
    try writer.withLock { (writer) throws(SystemError) in try sealCurrent(&writer) }
  }

  private func sealCurrent(_ writer: inout Writer) throws(SystemError) {
    guard let file = writer.file else { return }
    // The seal says that all before it is durable, so that must be so before the seal can be.
    if writer.durableLSN < writer.lastLSN {
      try file.syncData()
      writer.durableLSN = writer.lastLSN
      writer.alignedLSN = writer.lastLSN
    }
    writer.chain = try Self.writeSeal(
      file, at: writer.end, salt: writer.salt, lastLSN: writer.lastLSN, givenOut: writer.lastLSN,
      records: writer.records, previous: writer.chain, scratch: writer.scratch)
    try file.close()
    writer.file = nil
    let size = UInt64(roundUp(writer.end + Self.sealLength, to: LogFormat.sectorSize))
    catalog.withLock { $0.segments[writer.segment]?.bytes = size }
  }

  private static let sealLength = LogFormat.frameHeaderSize + 24

  /// Writes a seal frame at `end`, syncs, cuts the file behind it and syncs. Returns the chain
  /// value.
  ///
  /// **Layout** of the body: records in the segment 0/8, last LSN given out 8/8, file size 16/8.
  ///
  /// Crash steps: (1) the seal is durable; (2) the file is cut. So a file without a seal is never
  /// shorter than it was made, unless it was damaged.
  package static func writeSeal(
    _ file: any File, at end: Int, salt: UInt64, lastLSN: LSN, givenOut: LSN, records: UInt64,
    previous: UInt32, scratch: CommitBuffer
  ) throws(SystemError) -> UInt32 {
    let length = sealLength
    let size = roundUp(end + length, to: LogFormat.sectorSize)
    scratch.removeAll()
    scratch.putZeros(LogFormat.frameHeaderSize)
    scratch.put(records)
    scratch.put(givenOut.value)
    scratch.put(UInt64(size))
    let body = scratch.withBytes(LogFormat.frameHeaderSize..<length) { CRC32C.of($0) }
    scratch.putZeros(size - end - length)
    let header = FrameHeader(
      kind: .seal, salt: salt, firstLSN: lastLSN.advanced(by: 1), count: 0, bodyLength: 24,
      extent: UInt32(size - end), previous: previous, durableLSN: lastLSN, offset: UInt32(end),
      bodyChecksum: body)
    let chain = header.write(into: scratch)
    try scratch.withBytes { (bytes) throws(SystemError) in try file.write(bytes, at: UInt64(end)) }
    try file.syncData()
    try file.truncate(to: UInt64(size))
    try file.sync()
    return chain
  }

  /// Turns the oldest prepared file into the segment that `batch` begins.
  ///
  /// Crash steps: (1) the header is durable before the name is; (2) the name is durable before
  /// `HEAD` counts it; (3) `HEAD` is durable before any record in the file is acknowledged. A crash
  /// before (2) leaves a prepared file or an empty segment.
  private func beginSegment(_ writer: inout Writer, _ batch: Batch) throws(SystemError) {
    guard let source = catalog.withLock({ $0.prepared.popFirst() }) else {
      preconditionFailure("LogTail counts prepared segments")
    }
    let name = StoreFileName.segment(batch.firstLSN)
    let file = try fileSystem.open(path(source), .readWrite)
    writer.salt = random.next()
    writer.scratch.removeAll()
    let previous = writer.chain
    let header = SegmentHeader(
      store: storeFile.store, salt: writer.salt, firstLSN: batch.firstLSN, ordinal: batch.segment,
      previous: writer.chain, capacity: UInt32(segmentSize))
    writer.chain = header.write(into: writer.scratch)
    try writer.scratch.withBytes { (bytes) throws(SystemError) in try file.write(bytes, at: 0) }
    try file.syncData()
    try fileSystem.rename(path(source), to: path(name))
    try fileSystem.syncDirectory(directory)
    if let head = writer.head {
      let slot = HeadSlot(store: storeFile.store, ordinal: batch.segment)
      try Self.write(slot, to: head, slot: writer.headSlot, writer.scratch)
      writer.headSlot ^= 1
    }
    writer.file = file
    writer.segment = batch.segment
    writer.end = LogFormat.segmentHeaderSize
    writer.records = 0
    let info = SegmentInfo(firstLSN: batch.firstLSN, previous: previous, bytes: UInt64(segmentSize))
    catalog.withLock { $0.segments[batch.segment] = info }
  }

  /// Writes a slot of `HEAD` and makes it durable.
  static func write(
    _ head: HeadSlot, to file: any File, slot: Int, _ scratch: CommitBuffer
  ) throws(SystemError) {
    scratch.removeAll()
    head.write(into: scratch)
    try scratch.withBytes { (bytes) throws(SystemError) in
      try file.write(bytes, at: UInt64(HeadSlot.offset(slot)))
    }
    try file.syncData()
  }

  // MARK: Preparing

  /// File systems with room for as many segments need no reserve: it can be made in time.
  static let ampleSegments = 64

  /// Whether the file system has so much room that nothing need be kept ready for a full disk.
  public func hasAmpleSpace() throws(SystemError) -> Bool {
    try fileSystem.availableBytes(directory) / UInt64(segmentSize) >= UInt64(Self.ampleSegments)
  }

  /// Writes a whole segment of zeros, so that later appends neither allocate blocks nor can meet a
  /// full disk, and so that their sync need not change metadata.
  ///
  /// - Throws: `isOutOfSpace` when the file system is full; the half-made file is then removed.
  /// - Parameter isCancelled: asked between chunks; when true the file is removed and false
  ///   returned.
  public func prepareSegment(isCancelled: () -> Bool) throws(SystemError) -> Bool {
    let number = catalog.withLock { $0.nextNumber() }
    let name = StoreID.hex(number)
    let partial = path(name + StoreFileName.partialSuffix)
    let file = try fileSystem.open(partial, .create)
    do {
      let chunk = min(Self.fillChunk, segmentSize)
      let zeros = CommitBuffer(capacity: chunk)
      zeros.putZeros(chunk)
      var offset = 0
      while offset < segmentSize {
        if isCancelled() {
          try file.close()
          try fileSystem.remove(partial)
          return false
        }
        let length = min(chunk, segmentSize - offset)
        try zeros.withBytes(0..<length) { (bytes) throws(SystemError) in
          try file.writeThrough(bytes, at: UInt64(offset))
        }
        // One sync of it all would hold up the log's own.
        try file.sync()
        offset += length
      }
      try file.close()
      try fileSystem.rename(partial, to: path(name + StoreFileName.preparedSuffix))
    } catch {
      // The first error is the one to report; a file that stays is removed at the next start.
      do {
        try file.close()
        try fileSystem.remove(partial)
      } catch {}
      throw error
    }
    catalog.withLock { $0.prepared.append(name + StoreFileName.preparedSuffix) }
    return true
  }

  // MARK: Reading

  /// Lends `body` the payload of the record at `position`, checksum verified.
  ///
  /// - Throws: `corrupted` when the bytes fail their checksum, `system` when they cannot be read.
  /// - Complexity: one read at most, of 64 KiB where reads follow each other; one more for a record
  ///   that is larger than that, and as many again for one that fails its checksum.
  public func read<Result>(
    _ position: LogPosition, _ window: inout ReadWindow,
    _ body: (RawSpan) throws(LogError) -> Result
  ) throws(LogError) -> Result {
    // What fails its checksum where it is at hand may have been read before it was written, and
    // memory may fail: the file has the last word.
    var length = window.intactRecord(at: position)
    for isKept in [true, false] where length == nil {
      try load(position, window.size(at: position), &window, isKept)
      let wanted = window.recordLength(at: position)
      // A damaged length must not decide how much memory is taken.
      if wanted > window.count(at: position),
        try UInt64(position.offset) + UInt64(wanted) <= Self.size(file(position.segment).0)
      {
        try load(position, wanted, &window, isKept)
      }
      length = window.intactRecord(at: position)
    }
    guard let length else {
      throw .corrupted(
        LogError.Damage(
          file: StoreFileName.segment(try file(position.segment).firstLSN),
          offset: UInt64(position.offset), lsn: nil, reason: "the record fails its checksum"))
    }
    return try window.withBytes(position, length) { (record) throws(LogError) in
      try body(record.extracting(LogFormat.recordHeaderSize..<length))
    }
  }

  /// Whether all these places are among what was written last.
  public func keeps(_ count: Int, _ place: (Int) -> LogPosition) -> Bool {
    recent.withLock { recent in (0..<count).allSatisfy { recent.run(at: place($0)) != nil } }
  }

  /// Fills a window from the file, or first from what was written last.
  private func load(
    _ position: LogPosition, _ count: Int, _ window: inout ReadWindow, _ isKept: Bool
  ) throws(LogError) {
    try window.load(position) { (buffer) throws(LogError) in
      if isKept { recent.withLock { $0.read(position, count, into: buffer) } }
      guard buffer.count < LogFormat.recordHeaderSize else { return }
      buffer.removeAll()
      let (file, _) = try file(position.segment)
      do throws(SystemError) {
        try buffer.fill(count) { (rest) throws(SystemError) in
          try file.read(into: &rest, at: UInt64(position.offset))
        }
      } catch { throw .system(error) }
    }
  }

  /// The payload length that a record header names; -1 when there is no whole header.
  static func recordLength(_ record: borrowing RawSpan) -> Int {
    var cursor = ByteCursor(4)
    do throws(BytesTooShort) { return Int(try cursor.u32(record)) } catch { return -1 }
  }

  /// Whether a whole record, header included, matches its checksum.
  static func isIntact(_ record: borrowing RawSpan) -> Bool {
    var cursor = ByteCursor()
    do throws(BytesTooShort) {
      let checksum = try cursor.u32(record)
      return CRC32C.of(record.extracting(4..<record.byteCount)) == checksum
    } catch { return false }
  }

  private static func size(_ file: any File) throws(LogError) -> UInt64 {
    do throws(SystemError) { return try file.size() } catch { throw .system(error) }
  }

  func file(_ segment: UInt32) throws(LogError) -> (any File, firstLSN: LSN) {
    do throws(SystemError) {
      return try catalog.withLock { (catalog) throws(SystemError) in
        guard let info = catalog.segments[segment] else {
          throw SystemError(call: "open", path: "segment \(segment)", errno: 2)
        }
        if let file = catalog.files[segment] { return (file, info.firstLSN) }
        let file = try fileSystem.open(path(StoreFileName.segment(info.firstLSN)), .readOnly)
        if catalog.files.count >= Self.openFileLimit, let oldest = catalog.files.keys.min() {
          catalog.files[oldest] = nil
        }
        catalog.files[segment] = file
        return (file, info.firstLSN)
      }
    } catch {
      throw .system(error)
    }
  }

  /// Ends use of the directory. The log must be sealed or failed.
  public func close() {
    catalog.withLock {
      $0.files.removeAll()
      $0.indexes.removeAll()
    }
    lock.release()
  }

  func path(_ name: String) -> String { directory + "/" + name }
}
