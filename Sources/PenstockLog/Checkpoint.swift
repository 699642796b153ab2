// SPDX-License-Identifier: Apache-2.0
package import PenstockSystem

/// What a checkpoint covers and where replay goes on behind it: its first 64 bytes.
///
/// **Layout** (offset, size): magic 0/8, version 8/4, zero 12/4, storeHigh 16/8, storeLow 24/8,
/// lsn 32/8, firstLSN 40/8, ordinal 48/4, previous 52/4, zero 56/4, checksum 60/4. Behind it come
/// chunks: length 0/4, checksum of the bytes 4/4, bytes. A chunk of length 0 ends them; its bytes
/// are the sum of all lengths, in eight.
public struct CheckpointHeader: Hashable, Sendable {
  /// The store that it is of.
  public var store: StoreID
  /// Every record up to this one is in the state.
  public var lsn: LSN
  /// The segment that replay begins with, and its first LSN: the one that holds record `lsn`, or
  /// one behind it. What it holds up to `lsn` is in the state.
  public var ordinal: UInt32
  /// Its first LSN.
  public var firstLSN: LSN
  /// Chain value of the seal of the segment before that one.
  public var previous: UInt32

  package static let size = 64
  package static let chunkLimit = 64 << 20

  package func write(into buffer: CommitBuffer) {
    buffer.put(LogFormat.checkpointMagic)
    buffer.put(UInt32(LogFormat.version))
    buffer.put(UInt32(0))
    buffer.put(store.high)
    buffer.put(store.low)
    buffer.put(lsn.value)
    buffer.put(firstLSN.value)
    buffer.put(ordinal)
    buffer.put(previous)
    buffer.put(UInt32(0))
    buffer.put(buffer.withBytes { CRC32C.of($0) })
  }

  /// A header for a checkpoint that is to be written.
  public init(store: StoreID, lsn: LSN, ordinal: UInt32, firstLSN: LSN, previous: UInt32) {
    self.store = store
    self.lsn = lsn
    self.ordinal = ordinal
    self.firstLSN = firstLSN
    self.previous = previous
  }

  package init(_ span: borrowing RawSpan) throws(SegmentHeader.Failure) {
    var cursor = ByteCursor()
    _ = try cursor.begin(span, LogFormat.checkpointMagic, size: Self.size)
    do throws(BytesTooShort) {
      guard try cursor.u32(span) == 0 else { throw BytesTooShort() }
      store = StoreID(high: try cursor.u64(span), low: try cursor.u64(span))
      lsn = LSN(try cursor.u64(span))
      firstLSN = LSN(try cursor.u64(span))
      ordinal = try cursor.u32(span)
      previous = try cursor.u32(span)
      guard try cursor.u32(span) == 0, lsn < LogFormat.maximumLSN,
        firstLSN < LogFormat.endOfFirstLSNs, ordinal < LogFormat.endOfOrdinals
      else { throw BytesTooShort() }
    } catch { throw .damaged }
  }
}

/// A checkpoint file, whole and verified.
package struct Checkpoint {
  package var header: CheckpointHeader
  /// The bytes of all chunks.
  package var body: [UInt8]

  /// Reads a checkpoint.
  ///
  /// - Returns: nil when it is damaged, cannot be read, or is no checkpoint.
  /// - Throws: `unsupportedVersion` when a newer build wrote it: then it must stay as it is.
  package static func read(
    _ path: String, _ fileSystem: any FileSystem
  ) throws(LogError) -> Checkpoint? {
    do { return try readWhole(path, fileSystem) } catch {
      switch error {
      case SegmentHeader.Failure.version(let version):
        throw .unsupportedVersion(file: path, version: version)
      // A disk that cannot give it back is as good as one that gives back something else.
      case let error as SystemError where error.call != "pread": throw .system(error)
      default: return nil
      }
    }
  }

  private static func readWhole(
    _ path: String, _ fileSystem: any FileSystem
  ) throws -> Checkpoint? {
    let file = try fileSystem.open(path, .readOnly)
    let size = try file.size()
    guard let head = try file.bytes(CheckpointHeader.size, at: 0) else { return nil }
    let header = try head.withRaw { try CheckpointHeader($0) }
    var body: [UInt8] = []
    var offset = UInt64(CheckpointHeader.size)
    while true {
      guard let lengths = try file.bytes(8, at: offset) else { return nil }
      let (length, checksum) = lengths.withRaw { ($0.u32(at: 0), $0.u32(at: 4)) }
      offset += 8
      // A damaged length must not decide how much memory is taken.
      let count = length == 0 ? 8 : Int(length)
      guard count <= CheckpointHeader.chunkLimit, offset + UInt64(count) <= size else { return nil }
      guard let bytes = try file.bytes(count, at: offset),
        bytes.withRaw({ CRC32C.of($0) }) == checksum
      else { return nil }
      offset += UInt64(count)
      if length == 0 {
        let total = bytes.withRaw { UInt64($0.u32(at: 0)) | UInt64($0.u32(at: 4)) << 32 }
        guard total == UInt64(body.count), offset == size else { return nil }
        try file.close()
        return Checkpoint(header: header, body: body)
      }
      body += bytes
    }
  }
}

/// Writes a checkpoint: under another name until it is whole and durable.
///
/// Crash steps: (1) the file is durable under its temporary name; (2) its own name is durable; (3)
/// the caller may count on it. A crash before (2) leaves a file that the next start removes.
package struct CheckpointWriter {
  package let header: CheckpointHeader
  private let fileSystem: any FileSystem
  private let directory: String
  private let partial: String
  private let file: any File
  private var offset: UInt64 = 0
  private var total: UInt64 = 0

  package init(
    _ header: CheckpointHeader, directory: String, number: UInt64, _ fileSystem: any FileSystem
  ) throws(SystemError) {
    self.header = header
    self.directory = directory
    self.fileSystem = fileSystem
    partial = directory + "/" + StoreID.hex(number) + StoreFileName.partialSuffix
    file = try fileSystem.open(partial, .create)
    let buffer = CommitBuffer(capacity: CheckpointHeader.size)
    header.write(into: buffer)
    try write(buffer)
  }

  private mutating func write(_ buffer: CommitBuffer) throws(SystemError) {
    try buffer.withBytes { (bytes) throws(SystemError) in try file.write(bytes, at: offset) }
    offset += UInt64(buffer.count)
  }

  /// Writes what `buffer` holds as a chunk and empties it.
  package mutating func append(_ buffer: CommitBuffer) throws(SystemError) {
    guard buffer.count > 0 else { return }
    // One sync of it all would hold up the log's own.
    if total > 0 { try file.sync() }
    try writeChunk(buffer, length: UInt32(buffer.count))
    total += UInt64(buffer.count)
    buffer.removeAll()
  }

  private mutating func writeChunk(_ bytes: CommitBuffer, length: UInt32) throws(SystemError) {
    let head = CommitBuffer(capacity: 8)
    head.put(length)
    head.put(bytes.withBytes { CRC32C.of($0) })
    try write(head)
    try write(bytes)
  }

  /// Ends the file and gives it its name. Returns the name and the file's size.
  package mutating func finish() throws(SystemError) -> (name: String, bytes: UInt64) {
    let end = CommitBuffer(capacity: 8)
    end.put(total)
    try writeChunk(end, length: 0)
    try file.sync()
    try file.close()
    let name = StoreFileName.checkpoint(header.lsn)
    try fileSystem.rename(partial, to: directory + "/" + name)
    try fileSystem.syncDirectory(directory)
    return (name, offset)
  }

  /// Removes what was written so far.
  package func abandon() throws(SystemError) {
    try file.close()
    try fileSystem.remove(partial)
  }
}

extension File {
  /// So many bytes, or fewer up to the end of the file.
  package func bytes(upTo count: Int, at offset: UInt64) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    let read = try bytes.withMutableRaw { (raw) throws(SystemError) in
      try self.read(into: &raw, at: offset)
    }
    bytes.removeLast(count - read)
    return bytes
  }

  /// So many bytes; nil when the file ends before.
  package func bytes(_ count: Int, at offset: UInt64) throws(SystemError) -> [UInt8]? {
    let bytes = try bytes(upTo: count, at: offset)
    return bytes.count == count ? bytes : nil
  }
}

extension RawSpan {
  /// Little-endian; 0 where there are no four bytes.
  package func u32(at offset: Int) -> UInt32 {
    var cursor = ByteCursor(offset)
    do throws(BytesTooShort) { return try cursor.u32(self) } catch { return 0 }
  }
}
