// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem
internal import Synchronization

// What is done behind the log's open end: checkpoints, indexes of sealed segments, and the removal
// of segments in which nothing lives. All of it belongs to one background thread, but for the
// reading of indexes, which may run anywhere.

/// A segment that is there.
public struct SegmentInfo: Hashable, Sendable {
  /// Its name.
  public var firstLSN: LSN
  /// Chain value of the segment before it.
  public var previous: UInt32
  /// Of its file.
  public var bytes: UInt64
}

/// A checkpoint that was written or verified by this run.
public struct KeptCheckpoint: Hashable, Sendable {
  /// Every record up to this one is in it.
  public var lsn: LSN
  /// The segment that replay begins with.
  public var ordinal: UInt32
  /// Of its file.
  public var bytes: UInt64
}

extension SegmentedLog {
  /// Those that are there, by ordinal.
  public var segments: [UInt32: SegmentInfo] { catalog.withLock { $0.segments } }
  /// Oldest first.
  public var checkpoints: [KeptCheckpoint] { catalog.withLock { $0.checkpoints } }

  /// Segments before this one are needed for the bodies of messages alone: both kept checkpoints
  /// have everything else. 0 when there are not two.
  public var horizon: UInt32 {
    catalog.withLock { catalog in
      if catalog.reliesOnNewest, let newest = catalog.checkpoints.last { return newest.ordinal }
      return catalog.checkpoints.count < 2 ? 0 : catalog.checkpoints[0].ordinal
    }
  }

  /// Reads the newest checkpoint back, and lets it stand for both until the next is written: on a
  /// full disk that has no room for a record to tell a second one from it. If it is damaged later,
  /// a start is refused where the older one would have helped.
  ///
  /// - Returns: whether it is sound, and it was not so before.
  public func relyOnNewest() throws(SystemError) -> Bool {
    guard let newest = checkpoints.last, newest.ordinal > horizon, try damage(in: newest) == nil
    else { return false }
    catalog.withLock { $0.reliesOnNewest = true }
    return true
  }

  /// Bytes of all files but the prepared ones and the indexes.
  public var bytes: UInt64 {
    catalog.withLock { catalog in
      catalog.segments.values.reduce(0) { $0 + $1.bytes }
        + catalog.checkpoints.reduce(0) { $0 + $1.bytes }
    }
  }

  // MARK: Checkpoints

  /// Writes and installs a checkpoint of the state at `lsn`, and removes the oldest of three.
  ///
  /// - Parameters:
  ///   - lsn: it must be durable, with every record before it.
  ///   - ordinal: the segment that holds it.
  ///   - encode: puts the state into a buffer and flushes it now and then.
  /// - Durability: on return the checkpoint survives power loss.
  /// - Throws: `isOutOfSpace` when the file system is full; what was written is then removed.
  public func writeCheckpoint(
    lsn: LSN, ordinal: UInt32,
    _ encode: (CommitBuffer, (CommitBuffer) throws(SystemError) -> Void) throws(SystemError) -> Void
  ) throws(SystemError) {
    let (info, number) = catalog.withLock { ($0.segments[ordinal], $0.nextNumber()) }
    guard let info else { return }
    var writer = try CheckpointWriter(
      CheckpointHeader(
        store: storeFile.store, lsn: lsn, ordinal: ordinal, firstLSN: info.firstLSN,
        previous: info.previous), directory: directory, number: number, fileSystem)
    let bytes: UInt64
    do throws(SystemError) {
      try encode(CommitBuffer(capacity: 1 << 20)) { (buffer) throws(SystemError) in
        try writer.append(buffer)
      }
      bytes = try writer.finish().bytes
    } catch {
      // The first error is the one to report; a file that stays is removed at the next start.
      do throws(SystemError) { try writer.abandon() } catch {}
      throw error
    }
    let old = catalog.withLock { catalog -> [KeptCheckpoint] in
      catalog.reliesOnNewest = false
      // The second time if a removal failed the first time.
      if catalog.checkpoints.last?.lsn != lsn {
        catalog.checkpoints.append(KeptCheckpoint(lsn: lsn, ordinal: ordinal, bytes: bytes))
      }
      let count = max(0, catalog.checkpoints.count - 2)
      defer { catalog.checkpoints.removeFirst(count) }
      return Array(catalog.checkpoints.prefix(count))
    }
    for checkpoint in old { try remove(path(StoreFileName.checkpoint(checkpoint.lsn))) }
  }

  /// Reads a checkpoint; answers what is wrong with it, nil when it is sound or gone.
  public func damage(in checkpoint: KeptCheckpoint) throws(SystemError) -> String? {
    let name = StoreFileName.checkpoint(checkpoint.lsn)
    do throws(LogError) {
      if try Checkpoint.read(directory + "/" + name, fileSystem) != nil { return nil }
    } catch {
      if case .system(let cause) = error {
        guard cause.isNotFound else { throw cause }
        return nil
      }
    }
    return "\(name): the checkpoint is damaged"
  }

  /// Gives up the older of two checkpoints, so that a full disk has room for a new one. What could
  /// be removed behind it stays until there are two again.
  ///
  /// - Returns: whether there were two.
  public func removeOlderCheckpoint() throws(SystemError) -> Bool {
    let old = catalog.withLock { $0.checkpoints.count < 2 ? nil : $0.checkpoints.removeFirst() }
    guard let old else { return false }
    try remove(path(StoreFileName.checkpoint(old.lsn)))
    return true
  }

  /// Removes the newest prepared segment, which `LogTail` must have given up.
  public func removePrepared() throws(SystemError) {
    guard let name = catalog.withLock({ $0.prepared.popLast() }) else { return }
    try remove(path(name))
  }

  private func remove(_ path: String) throws(SystemError) {
    do throws(SystemError) { try fileSystem.remove(path) } catch {
      if !error.isNotFound { throw error }
    }
  }

  // MARK: Removing

  /// Removes a segment and its index.
  ///
  /// Nothing may live in it, which must be durable, and it must lie before `horizon`. A name that
  /// comes back after a loss of power is removed again later.
  public func removeSegment(_ ordinal: UInt32) throws(SystemError) {
    let info = catalog.withLock { catalog in
      catalog.files[ordinal] = nil
      catalog.indexes[ordinal] = nil
      return catalog.segments.removeValue(forKey: ordinal)
    }
    guard let info else { return }
    try remove(path(StoreFileName.segment(info.firstLSN)))
    try remove(path(StoreFileName.index(info.firstLSN)))
  }

  // MARK: Indexes

  /// Writes the index of a segment. It survives power loss or is made again when it is missed.
  public func writeIndex(_ index: SegmentIndex, of ordinal: UInt32) throws(SystemError) {
    let (info, number) = catalog.withLock { ($0.segments[ordinal], $0.nextNumber()) }
    guard let info else { return }
    let partial = path(StoreID.hex(number) + StoreFileName.partialSuffix)
    let file = try fileSystem.open(partial, .create)
    do throws(SystemError) {
      try index.encode(store: storeFile.store, ordinal: ordinal).withBytes {
        (bytes) throws(SystemError) in try file.write(bytes, at: 0)
      }
      try file.close()
      try fileSystem.rename(partial, to: path(StoreFileName.index(info.firstLSN)))
    } catch {
      do throws(SystemError) {
        try file.close()
        try fileSystem.remove(partial)
      } catch {}
      throw error
    }
    catalog.withLock { $0.indexes[ordinal] = nil }
  }

  static let openIndexLimit = 8

  /// Reads where waiting messages stand.
  ///
  /// - Returns: nil when the segment's index is missing or damaged: it must be made again.
  public func waiting(
    in ordinal: UInt32, queue: UInt32, from first: UInt64, through last: UInt64, limit: Int
  ) throws(SystemError) -> [WaitingMessage]? {
    var index = catalog.withLock { $0.indexes[ordinal] }
    if index == nil {
      guard let info = catalog.withLock({ $0.segments[ordinal] }) else { return nil }
      let name = path(StoreFileName.index(info.firstLSN))
      guard try fileSystem.status(name) != nil else { return nil }
      let file = try fileSystem.open(name, .readOnly)
      index = try SegmentIndexFile(file, store: storeFile.store, ordinal: ordinal)
      catalog.withLock { catalog in
        if catalog.indexes.count >= Self.openIndexLimit, let oldest = catalog.indexes.keys.min() {
          catalog.indexes[oldest] = nil
        }
        catalog.indexes[ordinal] = index
      }
    }
    return try index?.entries(queue: queue, from: first, through: last, limit: limit)
  }

  // MARK: Evidence

  /// Copies the bytes at a position to a file of their own, which stays.
  ///
  /// - Returns: the file's name.
  public func keepDamaged(_ position: LogPosition, size: Int) throws(LogError) -> String {
    let (file, firstLSN) = try file(position.segment)
    let segment = StoreFileName.segment(firstLSN)
    let name = segment + StoreFileName.damagedMark + String(position.offset, radix: 16)
    do throws(SystemError) {
      guard try fileSystem.status(path(name)) == nil else { return name }
      let rest = Int(clamping: try file.size()) - Int(position.offset)
      let bytes = try file.bytes(upTo: max(0, min(size, rest)), at: UInt64(position.offset))
      let number = catalog.withLock { $0.nextNumber() }
      let partial = path(StoreID.hex(number) + StoreFileName.partialSuffix)
      let copy = try fileSystem.open(partial, .create)
      try bytes.withRaw { (raw) throws(SystemError) in try copy.write(raw, at: 0) }
      try copy.sync()
      try copy.close()
      try fileSystem.rename(partial, to: path(name))
      try fileSystem.syncDirectory(directory)
    } catch { throw .system(error) }
    return name
  }

  // MARK: Reading whole segments

  /// Reads every record of a sealed segment and verifies every byte of it.
  ///
  /// - Throws: `corrupted` at the first damage.
  /// - Complexity: reads the whole segment.
  public func scan(
    _ ordinal: UInt32, _ body: (Replayed, RawSpan) throws(LogError) -> Void
  ) throws(LogError) {
    let (file, firstLSN) = try file(ordinal)
    let name = StoreFileName.segment(firstLSN)
    let size: Int
    do throws(SystemError) { size = Int(clamping: try file.size()) } catch { throw .system(error) }
    let reader = SegmentReader(file, size: size)
    let header = try reader.header(name, of: storeFile.store, in: directory)
    var scan = SegmentScan(
      name: name, salt: header.salt, ordinal: ordinal, chain: header.checksum,
      nextLSN: header.firstLSN)
    if let fault = try scan.step(reader, body) {
      throw scan.damage(fault.isEnd ? "the segment ends without its seal" : fault.text)
    }
  }
}
