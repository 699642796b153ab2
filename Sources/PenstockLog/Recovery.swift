// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem

/// What opening a log found and did.
public struct LogRecovery: Sendable {
  /// How the newest segment ended.
  public enum End: Sendable, Hashable {
    /// The store was made by this open.
    case created
    /// A seal: the last run closed cleanly.
    case sealed
    /// No seal, and nothing but zeros after the last frame.
    case clean
    /// Bytes after the last frame that were never acknowledged as synced.
    case torn
    /// The same, with whole frames of an unsynced window among them, persisted out of order.
    case unsyncedWindow
  }

  /// How the log ended.
  public var end = End.created
  /// The checkpoint that replay went on from; nil when it began with the first record.
  public var checkpoint: LSN?
  /// Checkpoints that were damaged and were set aside, by their new names.
  public var damagedCheckpoints: [String] = []
  /// Segments that are there.
  public var segments = 0
  /// Records behind the checkpoint.
  public var records: UInt64 = 0
  /// Segments behind the checkpoint, and their bytes.
  public var replayedSegments = 0
  /// Bytes of those segments.
  public var replayedBytes: UInt64 = 0
  /// Bytes of all segments.
  public var bytes: UInt64 = 0
  /// LSN of the last record.
  public var lastLSN = LSN(0)
  /// Bytes after the last good frame, up to the last that is not zero.
  public var droppedBytes = 0
  /// Where they were copied before the segment was cut; nil if there were none.
  public var evidence: String?
  /// Why they could not be copied, if so.
  public var evidenceFailure: String?
  /// Names in the directory that are not the store's.
  public var unknownFiles: [String] = []
}

/// What recovery hands to the log that continues.
struct RecoveredEnd {
  var chain: UInt32 = 0
  /// The last LSN that may have been given out; the next one follows.
  var lastLSN = LSN(0)
  var nextOrdinal: UInt32 = 0
  var segments: [UInt32: SegmentInfo] = [:]
  var checkpoints: [KeptCheckpoint] = []
  var prepared: [String] = []
  var head: (any File)?
  /// The slot of `HEAD` to write next: not the newest.
  var headSlot = 0
}

/// How a log is opened.
public struct LogOptions: Sendable {
  /// Size of a segment file in bytes; a multiple of 4096 from 64 KiB to 1 GiB.
  public var segmentSize = 32 << 20
  /// Memory for the newest frames, in bytes.
  public var recentBytes = 4 << 20
  package var plantedBug: PlantedBug?
  package var progress: (@Sendable (_ segmentsRead: Int, _ total: Int) -> Void)?
  /// The defaults.
  public init() {}

  func validated() throws(LogError) {
    guard segmentSize >= LogFormat.minimumSegmentSize, segmentSize <= LogFormat.maximumSegmentSize,
      segmentSize.isMultiple(of: LogFormat.sectorSize)
    else {
      throw .invalidOption(
        "the segment size must be a multiple of \(LogFormat.sectorSize) from "
          + "\(LogFormat.minimumSegmentSize) to \(LogFormat.maximumSegmentSize), not \(segmentSize)"
      )
    }
  }
}

extension SegmentedLog {
  /// One record as recovery finds it.
  public struct Replayed {
    /// The record's LSN.
    public var lsn: LSN
    /// Where it stands.
    public var position: LogPosition
    /// It is in the state of the checkpoint already.
    public var isInCheckpoint = false
  }

  /// A log that was opened, its end, and what was found.
  public struct Opened {
    /// The files.
    public var log: SegmentedLog
    /// Where records are appended.
    public var tail: LogTail
    /// What was found.
    public var recovery: LogRecovery
  }

  /// Opens or creates the log in `directory` and reads every record behind the newest checkpoint
  /// that can be used, oldest first.
  ///
  /// - Parameters:
  ///   - restore: takes the state in a checkpoint, or says why it is none. Without it checkpoints
  ///     are not used, and a log whose beginning was removed is refused.
  ///   - replay: takes each record's payload; an error from it ends the opening.
  /// - Durability: on return everything that was replayed is durable.
  /// - Throws: see `LogError`. After an error nothing that was acknowledged has been changed.
  /// - Complexity: reads the segments behind the checkpoint, and the headers of those before it.
  /// - Source: storage-lessons L3, L4, L7, L8; the table is in `Docs/format.md`.
  public static func open(
    directory: String, options: LogOptions = LogOptions(), fileSystem: any FileSystem,
    random: any RandomSource, clock: any SystemClock, restore: ((RawSpan) -> String?)? = nil,
    replay: (Replayed, RawSpan) throws(LogError) -> Void
  ) throws(LogError) -> Opened {
    try options.validated()
    let directory =
      directory.hasSuffix("/") && directory.utf8.count > 1
      ? String(directory.dropLast()) : directory
    do throws(SystemError) {
      if try fileSystem.status(directory) == nil {
        try fileSystem.createDirectory(directory)
        try fileSystem.syncDirectory(parent(of: directory))
      }
    } catch { throw .system(error) }
    try Recovery.refuseStrangers(directory, fileSystem)
    let lock: any FileLock
    do throws(SystemError) {
      lock = try fileSystem.lock(directory + "/" + StoreFileName.lock)
    } catch {
      throw error.isLocked ? .inUse(directory: directory) : .system(error)
    }
    var recovery = Recovery(
      directory: directory, fileSystem: fileSystem, random: random,
      segmentSize: options.segmentSize, plantedBug: options.plantedBug)
    do throws(LogError) {
      let storeFile = try recovery.openStoreFile(createdAt: clock.wallMilliseconds())
      if let restore { try recovery.restoreCheckpoint(of: storeFile, restore) }
      try recovery.replaySegments(of: storeFile, progress: options.progress, replay)
      guard recovery.end.lastLSN < LogFormat.endOfFirstLSNs else {
        throw .damaged(
          recovery.segmentNames.last ?? "", lsn: recovery.end.lastLSN,
          "its LSNs are at their end: nothing can be appended")
      }
      let log = SegmentedLog(
        directory: directory, storeFile: storeFile, fileSystem: fileSystem,
        options: options, random: random, lock: lock, recovered: recovery.end)
      var tail = LogTail(
        lastLSN: recovery.end.lastLSN, nextSegment: recovery.end.nextOrdinal,
        segmentSize: options.segmentSize, plantedBug: options.plantedBug)
      for _ in recovery.end.prepared { tail.prepared() }
      return Opened(log: log, tail: tail, recovery: recovery.report)
    } catch {
      lock.release()
      throw error
    }
  }

  static func parent(of path: String) -> String {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }
}

/// One opening of one directory, step by step.
struct Recovery {
  let directory: String
  let fileSystem: any FileSystem
  let random: any RandomSource
  let segmentSize: Int
  let plantedBug: PlantedBug?
  var report = LogRecovery()
  var end = RecoveredEnd()
  private(set) var segmentNames: [String] = []
  private(set) var wasCreated = false
  fileprivate var leftovers: [String] = []
  private(set) var checkpointNames: [String] = []
  private(set) var indexNames: [String] = []

  func path(_ name: String) -> String { directory + "/" + name }

  // MARK: The directory

  /// Finds what is in the directory, clears what a crash left half made, and reads or writes
  /// `STORE`.
  ///
  /// Crash steps of creation: (1) the first segment, holding LSN 1 and a seal, and `HEAD` are
  /// durable; (2) `STORE` appears by rename. A crash before (2) leaves a directory without `STORE`
  /// whose only segment was never used, which is made anew. After (2) a store without segments has
  /// lost them.
  mutating func openStoreFile(createdAt: Int64) throws(LogError) -> StoreFile {
    do throws(SystemError) {
      // What is seen from here on must not vanish: the last process may have died before its sync
      // (L3).
      try fileSystem.syncDirectory(directory)
      for name in try fileSystem.list(directory) {
        switch StoreFileName.kind(of: name) {
        case .segment: segmentNames.append(name)
        case .checkpoint: checkpointNames.append(name)
        case .index: indexNames.append(name)
        case .prepared where try fileSystem.status(path(name))?.size == UInt64(segmentSize):
          end.prepared.append(name)
        case .prepared, .partial: leftovers.append(name)
        case .other: break
        case .unknown: report.unknownFiles.append(name)
        }
      }
    } catch { throw .system(error) }
    if let file = try readStoreFile() {
      guard !segmentNames.isEmpty else {
        throw .damaged(
          StoreFileName.store, lsn: LSN(1), "the store exists, but all its segments are missing")
      }
      try removeLeftovers()
      return file
    }
    return try createStore(createdAt: createdAt)
  }

  /// Removes what a crash left half made. Only in a directory that is a store, or becomes one.
  private func removeLeftovers() throws(LogError) {
    do throws(SystemError) {
      for name in leftovers { try fileSystem.remove(path(name)) }
    } catch { throw .system(error) }
  }

  /// Refuses a directory that holds something else, before anything is made in it.
  static func refuseStrangers(_ directory: String, _ fileSystem: any FileSystem) throws(LogError) {
    let stranger: String?
    do throws(SystemError) {
      guard try fileSystem.status(directory + "/" + StoreFileName.store) == nil else { return }
      let names = try fileSystem.list(directory)
      let unknown = names.first { StoreFileName.kind(of: $0) == .unknown }
      if unknown == nil, names.contains(StoreFileName.head) {
        stranger = try head(directory, fileSystem) == nil ? StoreFileName.head : nil
      } else {
        stranger = unknown
      }
    } catch { throw .system(error) }
    guard let stranger else { return }
    throw .notAStore(
      directory: directory,
      reason: "it has no STORE file and holds other files, such as \(stranger); "
        + "choose an empty or a new directory")
  }

  /// The newer slot of a `HEAD`, if any. A creation names the file when it is whole, so one that
  /// has no slot, beside no `STORE`, is a stranger's.
  private static func head(
    _ directory: String, _ fileSystem: any FileSystem
  ) throws(SystemError) -> HeadSlot? {
    let path = directory + "/" + StoreFileName.head
    guard try fileSystem.status(path) != nil else { return nil }
    let file = try fileSystem.open(path, .readOnly)
    let slots = try readHead(file)
    try file.close()
    return slots.compactMap(\.self).max { $0.ordinal < $1.ordinal }
  }

  private func readStoreFile() throws(LogError) -> StoreFile? {
    let name = path(StoreFileName.store)
    let bytes: [UInt8]
    do throws(SystemError) {
      guard let status = try fileSystem.status(name) else { return nil }
      let file = try fileSystem.open(name, .readOnly)
      bytes = try file.bytes(upTo: Int(min(status.size, 4096)), at: 0)
      try file.close()
    } catch { throw .system(error) }
    do throws(SegmentHeader.Failure) {
      return try bytes.withRaw { (raw) throws(SegmentHeader.Failure) in try StoreFile(raw) }
    } catch {
      switch error {
      case .version(let version): throw .unsupportedVersion(file: name, version: version)
      case .damaged: throw .damaged(StoreFileName.store, "it fails its checksum")
      }
    }
  }

  private mutating func createStore(createdAt: Int64) throws(LogError) -> StoreFile {
    let first = StoreFileName.segment(LSN(1))
    for name in segmentNames {
      let size: UInt64
      do throws(SystemError) { size = try fileSystem.status(path(name))?.size ?? 0 } catch {
        throw .system(error)
      }
      guard name == first, size <= UInt64(Self.firstSegmentSize) else {
        throw .damaged(name, "the directory holds segments in use, but the file STORE is missing")
      }
    }
    if let name = checkpointNames.first {
      throw .damaged(name, "the directory holds a checkpoint, but the file STORE is missing")
    }
    let head: HeadSlot?
    do throws(SystemError) { head = try Self.head(directory, fileSystem) } catch {
      throw .system(error)
    }
    if let begun = head?.ordinal, begun > 0 {
      throw .damaged(
        StoreFileName.head,
        "\(begun) segments were begun after the first, but the file STORE is missing")
    }
    try removeLeftovers()
    let store = StoreFile(
      store: StoreID(high: random.next(), low: random.next()), keyHigh: random.next(),
      keyLow: random.next(), createdAt: createdAt)
    do throws(SystemError) {
      // A first segment without STORE is what a crash left of a creation: remake it.
      for name in segmentNames { try fileSystem.remove(path(name)) }
      try writeFirstSegment(store, at: path(first))
      try writeHead(store)
      try fileSystem.syncDirectory(directory)
      let buffer = CommitBuffer(capacity: StoreFile.size)
      store.write(into: buffer)
      let file = try fileSystem.open(path(StoreFileName.newStore), .create)
      try buffer.withBytes { (bytes) throws(SystemError) in try file.write(bytes, at: 0) }
      try file.sync()
      try file.close()
      try syncParent()
      try fileSystem.rename(path(StoreFileName.newStore), to: path(StoreFileName.store))
      try fileSystem.syncDirectory(directory)
    } catch { throw .system(error) }
    segmentNames = [first]
    wasCreated = true
    return store
  }

  /// Makes the directory's own name durable: a process that made it may have died before its sync.
  ///
  /// A parent that this process may not read was not the place where such a process made it.
  private func syncParent() throws(SystemError) {
    do throws(SystemError) {
      try fileSystem.syncDirectory(SegmentedLog.parent(of: directory))
    } catch {
      if !error.isNotPermitted { throw error }
    }
  }

  /// Writes the first `HEAD`. Its name stands for a whole file, in place of one that a creation
  /// before this one left.
  private func writeHead(_ store: StoreFile) throws(SystemError) {
    let partial = path(StoreID.hex(random.next()) + StoreFileName.partialSuffix)
    let file = try fileSystem.open(partial, .create)
    let scratch = CommitBuffer(capacity: HeadSlot.fileSize)
    // Both sectors are written now, so that later writes need no space.
    scratch.putZeros(HeadSlot.fileSize)
    try scratch.withBytes { (bytes) throws(SystemError) in try file.write(bytes, at: 0) }
    let head = HeadSlot(store: store.store, ordinal: 0)
    try SegmentedLog.write(head, to: file, slot: 0, scratch)
    try file.sync()
    try file.close()
    try fileSystem.rename(partial, to: path(StoreFileName.head))
  }

  /// The two slots of `HEAD`; nil for one that is damaged or was never written.
  private static func readHead(_ file: any File) throws(SystemError) -> [HeadSlot?] {
    try file.bytes(upTo: HeadSlot.fileSize, at: 0).withRaw { raw in
      (0..<2).map { HeadSlot(raw, at: HeadSlot.offset($0)) }
    }
  }

  /// Refuses a store whose newest segments are gone: `HEAD` counts more than there are.
  ///
  /// - Parameters:
  ///   - newest: the ordinal of the newest segment that is there.
  ///   - next: the LSN that a segment behind it would begin with.
  mutating func openHead(_ store: StoreFile, newest: UInt32, next: LSN) throws(LogError) {
    func refused(_ reason: String, _ lsn: LSN? = nil) -> LogError {
      .damaged(StoreFileName.head, lsn: lsn, reason)
    }
    let slots: [HeadSlot?]
    do throws(SystemError) {
      let name = path(StoreFileName.head)
      if store.version == 1, try fileSystem.status(name) == nil { return }
      let file = try fileSystem.open(name, .readWrite)
      // What is read must not vanish (L3).
      try file.syncData()
      slots = try Self.readHead(file)
      end.head = file
    } catch {
      throw error.isNotFound ? refused("the file is missing") : .system(error)
    }
    let ordinals = slots.map { $0?.store == store.store ? $0?.ordinal : nil }
    guard let begun = ordinals.compactMap(\.self).max() else {
      throw refused("it is damaged, or another store's")
    }
    end.headSlot = ordinals[0] == begun ? 1 : 0
    guard begun <= newest else {
      let there = UInt64(newest) + 1
      throw refused("\(UInt64(begun) + 1) segments were begun, and only \(there) are there", next)
    }
  }

  static let firstSegmentSize = LogFormat.segmentHeaderSize + 2 * LogFormat.sectorSize

  /// A sealed segment with LSN 1, a record of the log's own: kind 0, seven zeros, time of creation.
  private func writeFirstSegment(_ store: StoreFile, at path: String) throws(SystemError) {
    let file = try fileSystem.open(path, .create)
    let salt = random.next()
    let scratch = CommitBuffer(capacity: 2 * LogFormat.segmentHeaderSize)
    let header = SegmentHeader(
      store: store.store, salt: salt, firstLSN: LSN(1), ordinal: 0, previous: 0,
      capacity: UInt32(Self.firstSegmentSize))
    var chain = header.write(into: scratch)
    try scratch.withBytes { (bytes) throws(SystemError) in try file.write(bytes, at: 0) }
    scratch.removeAll()
    scratch.putZeros(LogFormat.frameHeaderSize)
    scratch.put(UInt32(0))
    scratch.put(UInt32(16))
    scratch.put(UInt64(0))
    scratch.put(store.createdAt)
    let start = LogFormat.frameHeaderSize
    let length = scratch.count - start
    scratch.set(scratch.withBytes(start + 4..<scratch.count) { CRC32C.of($0) }, at: start)
    let body = scratch.withBytes(start..<scratch.count) { CRC32C.of($0) }
    scratch.putZeros(LogFormat.sectorSize - scratch.count)
    let frame = FrameHeader(
      kind: .records, salt: salt, firstLSN: LSN(1), count: 1, bodyLength: UInt32(length),
      extent: UInt32(LogFormat.sectorSize), previous: chain, durableLSN: LSN(0),
      offset: UInt32(LogFormat.segmentHeaderSize), bodyChecksum: body)
    chain = frame.write(into: scratch)
    try scratch.withBytes { (bytes) throws(SystemError) in
      try file.write(bytes, at: UInt64(LogFormat.segmentHeaderSize))
    }
    try file.sync()
    _ = try SegmentedLog.writeSeal(
      file, at: LogFormat.segmentHeaderSize + LogFormat.sectorSize, salt: salt, lastLSN: LSN(1),
      givenOut: LSN(1), records: 1, previous: chain, scratch: scratch)
    try file.close()
  }
}
