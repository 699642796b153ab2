// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

// Reading the segments: the decision table of `Docs/format.md`, row by row.

extension Recovery {
  /// Reads every segment behind the checkpoint in order and hands each record to `replay`.
  mutating func replaySegments(
    of store: StoreFile, progress: ((Int, Int) -> Void)?,
    _ replay: (SegmentedLog.Replayed, RawSpan) throws(LogError) -> Void
  ) throws(LogError) {
    let first = end.lastLSN.advanced(by: 1)
    let checkpoint = report.checkpoint ?? LSN(0)
    var records: UInt64 = 0
    var last = end.lastLSN
    let total = segmentNames.count { StoreFileName.firstLSN(of: $0).map { $0 >= first } ?? true }
    progress?(0, total)
    for name in segmentNames {
      let isNewest = name == segmentNames.last
      let file: any File
      let reader: SegmentReader
      let isOld: Bool
      do throws(SystemError) {
        file = try fileSystem.open(path(name), isNewest ? .readWrite : .readOnly)
        // Bytes that only the page cache holds must not be acted on (L3).
        if isNewest { try file.sync() }
        isOld =
          report.checkpoint != nil && StoreFileName.firstLSN(of: name).map { $0 < first } ?? false
        // Of an old one the header is enough.
        reader = SegmentReader(
          file, size: Int(clamping: try file.size()),
          least: isOld ? LogFormat.segmentHeaderSize : SegmentReader.windowSize)
      } catch { throw .system(error) }
      if isOld {
        try surveySegment(name, reader, store: store.store)
      } else {
        try replaySegment(name, file, reader, store: store, isNewest: isNewest) {
          (found, payload) throws(LogError) in
          var found = found
          found.isInCheckpoint = found.lsn <= checkpoint
          if !found.isInCheckpoint { records += 1 }
          last = found.lsn
          try replay(found, payload)
        }
        progress?(report.replayedSegments, total)
      }
      do throws(SystemError) { try file.close() } catch { throw .system(error) }
    }
    guard end.nextOrdinal < LogFormat.endOfOrdinals, end.lastLSN >= first || first == LSN(1) else {
      throw .refused(
        StoreFileName.segment(first), "the segment that the checkpoint goes on with is missing")
    }
    report.records = records
    // What a checkpoint has was durable before it was written.
    guard last >= checkpoint else {
      throw .refused(
        segmentNames.last ?? "",
        "the log ends with LSN \(last), before its checkpoint \(checkpoint)")
    }
    try removeStaleIndexes()
  }

  /// Takes up a segment before the checkpoint. It holds bodies alone, which are verified when they
  /// are read; some of these segments may have been removed.
  private mutating func surveySegment(
    _ name: String, _ reader: SegmentReader, store: StoreID
  ) throws(LogError) {
    let header = try reader.header(name, of: store, in: directory)
    guard header.ordinal < end.nextOrdinal, end.segments[header.ordinal] == nil else {
      throw .refused(name, "the segment's place in the log is another's")
    }
    end.segments[header.ordinal] = SegmentInfo(
      firstLSN: header.firstLSN, previous: header.previous, bytes: UInt64(reader.size))
    report.segments += 1
    report.bytes += UInt64(reader.size)
  }

  /// Indexes of segments that were removed; a crash left them.
  private func removeStaleIndexes() throws(LogError) {
    let needed = Set(end.segments.values.map { StoreFileName.index($0.firstLSN) })
    do throws(SystemError) {
      for name in indexNames where !needed.contains(name) { try fileSystem.remove(path(name)) }
    } catch { throw .system(error) }
  }

  // MARK: Checkpoints

  /// Takes the newest checkpoint that can be used, and verifies the one before it.
  ///
  /// One that is damaged is renamed, so that it is no candidate again and stays as evidence. None
  /// is needed to know what was acknowledged as long as every segment is there.
  mutating func restoreCheckpoint(
    of store: StoreFile, _ restore: (RawSpan) -> String?
  ) throws(LogError) {
    for name in checkpointNames.reversed() {
      let isSpare = end.checkpoints.count >= 2
      let checkpoint = isSpare ? nil : try Checkpoint.read(path(name), fileSystem)
      do throws(SystemError) {
        if isSpare {
          try fileSystem.remove(path(name))
          continue
        }
        guard let checkpoint, checkpoint.header.store == store.store,
          StoreFileName.checkpoint(checkpoint.header.lsn) == name,
          end.checkpoints.isEmpty ? checkpoint.body.withRaw({ restore($0) }) == nil : true
        else {
          let aside = name + StoreFileName.damagedSuffix
          try fileSystem.rename(path(name), to: path(aside))
          report.damagedCheckpoints.append(aside)
          continue
        }
        let header = checkpoint.header
        if end.checkpoints.isEmpty {
          report.checkpoint = header.lsn
          report.lastLSN = header.lsn
          end.lastLSN = LSN(header.firstLSN.value - 1)
          end.nextOrdinal = header.ordinal
          end.chain = header.previous
        }
        end.checkpoints.insert(
          KeptCheckpoint(
            lsn: header.lsn, ordinal: header.ordinal,
            bytes: UInt64(checkpoint.body.count + CheckpointHeader.size)), at: 0)
      } catch { throw .system(error) }
    }
  }

  private mutating func replaySegment(
    _ name: String, _ file: any File, _ reader: SegmentReader, store: StoreFile,
    isNewest: Bool, _ replay: (SegmentedLog.Replayed, RawSpan) throws(LogError) -> Void
  ) throws(LogError) {
    let header = try reader.header(name, of: store.store, in: directory)
    let expected = end.lastLSN.advanced(by: 1)
    guard header.firstLSN == expected, header.ordinal == end.nextOrdinal else {
      throw .refused(
        name,
        expected == LSN(1) && !checkpointsMissing.isEmpty
          ? checkpointsMissing
          : "a segment is missing before this one: LSN \(expected) was expected")
    }
    guard header.previous == end.chain else {
      throw .refused(name, "the segment does not continue the one before it")
    }
    var scan = SegmentScan(
      name: name, salt: header.salt, ordinal: header.ordinal, chain: header.checksum,
      nextLSN: expected, trusts: isNewest && plantedBug == .trustsTheTail)
    end.segments[header.ordinal] = SegmentInfo(
      firstLSN: header.firstLSN, previous: header.previous, bytes: UInt64(reader.size))
    end.nextOrdinal = header.ordinal &+ 1
    report.segments += 1
    let fault = try scan.step(reader, replay)
    // Only the newest segment may end without a seal, and only where nothing acknowledged follows.
    if let fault, !isNewest {
      throw scan.damage(fault.isEnd ? "the segment ends without its seal" : fault.text)
    }
    // Before anything is changed.
    if isNewest {
      let next = fault == nil ? scan.givenOut.advanced(by: 1) : scan.nextLSN
      try openHead(store, newest: header.ordinal, next: next)
    }
    if let fault {
      guard header.version == 1 || reader.size == Int(header.capacity) else {
        throw scan.damage(
          "the file has \(reader.size) bytes and no seal, though \(header.capacity) were made")
      }
      try endNewest(file, reader, &scan, fault)
    }
    // The next segment would get the same name.
    if scan.isSealed, scan.givenOut < header.firstLSN {
      throw scan.damage("the segment is sealed and holds no record")
    }
    if scan.isSealed, scan.offset < reader.size {
      if !isNewest { throw scan.damage("the file goes on behind its seal") }
      guard try reader.contentEnd(from: scan.offset) == scan.offset else {
        throw scan.damage("bytes other than zero behind the seal")
      }
      // A crash between the seal and the cut behind it left them; older segments must have none.
      do throws(SystemError) {
        try file.truncate(to: UInt64(scan.offset))
        try file.sync()
      } catch { throw .system(error) }
    }
    if scan.isSealed, isNewest { report.end = wasCreated ? .created : .sealed }
    if scan.isSealed { end.segments[header.ordinal]?.bytes = UInt64(scan.offset) }
    report.replayedSegments += 1
    report.replayedBytes += UInt64(scan.offset)
    report.bytes += UInt64(reader.size)
    end.chain = scan.chain
    if scan.records > 0 { report.lastLSN = LSN(scan.nextLSN.value - 1) }
    end.lastLSN = scan.givenOut
  }

  /// Why the log cannot begin with its first record, when checkpoints there were.
  private var checkpointsMissing: String {
    report.damagedCheckpoints.isEmpty && checkpointNames.isEmpty
      ? ""
      : "the log's beginning is behind checkpoints, and none of them can be read; "
        + "`penstock salvage` shows what the segments hold"
  }

  /// Decides what the first bad frame of the newest segment means, and ends the segment there.
  ///
  /// Crash steps: (1) the bytes to be dropped are copied and durable; (2) zeros in their place are
  /// durable; (3) the seal is written and durable. A crash in between finds the same end again, or
  /// a clean one.
  private mutating func endNewest(
    _ file: any File, _ reader: SegmentReader, _ scan: inout SegmentScan, _ fault: FrameFault
  ) throws(LogError) {
    let start = scan.offset
    var whole = 0
    if !fault.isEnd {
      var offset = start + LogFormat.frameAlignment
      while let (header, place) = try reader.nextFrame(from: offset, salt: scan.salt) {
        let refusesAll = plantedBug == .refusesUnsyncedWindows
        if refusesAll || header.durableLSN >= scan.nextLSN, plantedBug != .cutsWhatWasDurable {
          throw scan.damage(
            "\(fault.text), but a frame at offset \(place) shows that LSN "
              + "\(scan.nextLSN) to \(header.durableLSN) were durable")
        }
        whole += 1
        offset = place + LogFormat.frameAlignment
      }
    }
    let lastLSN = LSN(scan.nextLSN.value - 1)
    // The log's own record was durable before `STORE` was; without it nothing is left of the store.
    guard lastLSN >= LSN(1) else { throw scan.damage("the first record is missing") }
    guard lastLSN >= report.checkpoint ?? LSN(0) else {
      throw scan.damage(
        "\(fault.text), but a checkpoint shows that LSN \(scan.nextLSN) to "
          + "\(report.checkpoint ?? lastLSN) were durable")
    }
    report.droppedBytes = try reader.contentEnd(from: start) - start
    report.end = report.droppedBytes == 0 ? .clean : whole > 0 ? .unsyncedWindow : .torn
    if report.droppedBytes > 0 { try keepEvidence(reader, scan.name, from: start) }
    do throws(SystemError) {
      // Or the seal could be on disk with dropped bytes behind it.
      if report.droppedBytes > 0 { try erase(file, from: start, report.droppedBytes) }
      let isReusing = plantedBug == .reusesLSNs && scan.records > 0
      scan.givenOut = lastLSN.advanced(by: isReusing ? 0 : LogFormat.lostLSNs)
      scan.chain = try SegmentedLog.writeSeal(
        file, at: start, salt: scan.salt, lastLSN: lastLSN, givenOut: scan.givenOut,
        records: scan.records, previous: scan.chain,
        scratch: CommitBuffer(capacity: 2 * LogFormat.sectorSize))
    } catch { throw .system(error) }
  }

  /// Overwrites dropped bytes with zeros and makes that durable.
  private func erase(_ file: any File, from start: Int, _ length: Int) throws(SystemError) {
    let zeros = CommitBuffer(capacity: min(length, SegmentReader.windowSize))
    zeros.putZeros(min(length, SegmentReader.windowSize))
    for offset in stride(from: 0, to: length, by: SegmentReader.windowSize) {
      try zeros.withBytes(0..<min(zeros.count, length - offset)) { (bytes) throws(SystemError) in
        try file.write(bytes, at: UInt64(start + offset))
      }
    }
    try file.syncData()
  }

  private mutating func keepEvidence(
    _ reader: SegmentReader, _ name: String, from start: Int
  ) throws(LogError) {
    let copy = name + StoreFileName.evidenceMark + String(start, radix: 16)
    let partial = StoreID.hex(random.next()) + StoreFileName.partialSuffix
    do throws(SystemError) {
      // A copy that is there is whole, and of more than an erasure that was cut short has left.
      if try fileSystem.status(path(copy)) == nil {
        let target = try fileSystem.open(path(partial), .create)
        for offset in stride(from: 0, to: report.droppedBytes, by: SegmentReader.windowSize) {
          let length = min(SegmentReader.windowSize, report.droppedBytes - offset)
          // A copy that is not whole must not get the name of one.
          guard let chunk = try reader.file.bytes(length, at: UInt64(start + offset)) else {
            throw SystemError(call: "pread", path: path(name), errno: 5)
          }
          try chunk.withRaw { (raw) throws(SystemError) in
            try target.write(raw, at: UInt64(offset))
          }
        }
        try target.sync()
        try target.close()
        try fileSystem.rename(path(partial), to: path(copy))
        try fileSystem.syncDirectory(directory)
      }
      report.evidence = copy
    } catch {
      // A full disk must not keep a store from opening; everything else must be looked at first.
      guard error.isOutOfSpace else { throw .system(error) }
      report.evidenceFailure = error.description
      do throws(SystemError) { try fileSystem.remove(path(partial)) } catch {
        guard error.isNotFound else { throw .system(error) }
      }
    }
  }
}

/// Why a frame cannot be used.
struct FrameFault {
  /// Nothing but the end of the file, or zeros as far as a frame header goes.
  var isEnd: Bool
  var text: String
}

/// The walk over one segment's frames.
struct SegmentScan {
  let name: String
  let salt: UInt64
  let ordinal: UInt32
  /// Chain value that the next frame must carry.
  var chain: UInt32
  var nextLSN: LSN
  /// A planted bug: checksums do not count.
  var trusts = false
  /// The last LSN that may have been given out when the segment was sealed; 0 until its seal is
  /// read or written.
  var givenOut = LSN(0)
  var offset = LogFormat.segmentHeaderSize
  var records: UInt64 = 0
  var isSealed = false

  func damage(_ reason: String) -> LogError {
    .damaged(name, at: UInt64(offset), lsn: nextLSN, reason)
  }

  /// Replays frames until the seal (nil) or the first bad one.
  mutating func step(
    _ reader: SegmentReader,
    _ replay: (SegmentedLog.Replayed, RawSpan) throws(LogError) -> Void
  ) throws(LogError) -> FrameFault? {
    while !isSealed {
      try reader.load(at: offset, LogFormat.frameHeaderSize)
      guard let header = reader.frameHeader(at: offset) else {
        let isEnd = reader.isZero(at: offset, LogFormat.frameHeaderSize)
        guard isEnd, try reader.contentEnd(from: offset) == offset else {
          return FrameFault(isEnd: false, text: "a frame header is damaged")
        }
        return FrameFault(isEnd: true, text: "the log ends")
      }
      if let text = mismatch(header, reader.size) { return FrameFault(isEnd: false, text: text) }
      try reader.load(at: offset, Int(header.extent))
      let body = LogFormat.frameHeaderSize + Int(header.bodyLength)
      guard
        trusts
          || reader.checksum(offset + LogFormat.frameHeaderSize, offset + body)
            == header.bodyChecksum
      else { return FrameFault(isEnd: false, text: "a frame's records are damaged") }
      guard reader.isZero(at: offset + body, Int(header.extent) - body) else {
        return FrameFault(isEnd: false, text: "a frame's padding is damaged")
      }
      if header.kind == .seal {
        guard let last = lastLSN(ofSeal: header, reader) else {
          return FrameFault(isEnd: false, text: "the seal and its segment disagree")
        }
        givenOut = last
      }
      try replayRecords(header, reader, replay)
      chain = header.headerChecksum
      nextLSN = nextLSN.advanced(by: Int(header.count))
      records += UInt64(header.count)
      offset += Int(header.extent)
      isSealed = header.kind == .seal
    }
    return nil
  }

  /// The last LSN given out, from a seal that says of its segment what was read of it; else nil.
  private func lastLSN(ofSeal header: FrameHeader, _ reader: SegmentReader) -> LSN? {
    reader.look(offset + LogFormat.frameHeaderSize, Int(header.bodyLength)) { body in
      var cursor = ByteCursor()
      do throws(BytesTooShort) {
        let (count, last, size) = (
          try cursor.u64(body), LSN(try cursor.u64(body)), try cursor.u64(body)
        )
        let isTrue =
          count == records && last.value >= nextLSN.value - 1 && last < LogFormat.maximumLSN
          && size == UInt64(offset + Int(header.extent))
        return isTrue ? last : nil
      } catch { return nil }
    }
  }

  private func mismatch(_ header: FrameHeader, _ size: Int) -> String? {
    guard header.salt == salt else { return "a frame belongs to another segment" }
    guard Int(header.offset) == offset else { return "a frame stands in another's place" }
    guard header.previous == chain else { return "a frame does not continue the one before it" }
    guard header.firstLSN == nextLSN else { return "a frame begins with LSN \(header.firstLSN)" }
    guard header.kind == .records || header.count == 0 else {
      return "a frame without records counts some"
    }
    let extent = Int(header.extent)
    guard extent.isMultiple(of: LogFormat.frameAlignment),
      extent >= LogFormat.frameHeaderSize + Int(header.bodyLength), offset + extent <= size
    else { return "a frame is longer than its file" }
    return nil
  }

  private func replayRecords(
    _ header: FrameHeader, _ reader: SegmentReader,
    _ replay: (SegmentedLog.Replayed, RawSpan) throws(LogError) -> Void
  ) throws(LogError) {
    guard header.kind == .records else { return }
    var at = offset + LogFormat.frameHeaderSize
    let end = at + Int(header.bodyLength)
    for index in 0..<Int(header.count) {
      guard let length = reader.recordLength(at: at, limit: end, trusts: trusts) else {
        throw damage("record \(index) of a frame is damaged")
      }
      let position = LogPosition(segment: ordinal, offset: UInt32(truncatingIfNeeded: at))
      let lsn = header.firstLSN.advanced(by: index)
      try reader.look(at + LogFormat.recordHeaderSize, length) {
        (payload) throws(LogError) in
        try replay(.init(lsn: lsn, position: position), payload)
      }
      at += LogFormat.recordSize(payload: length)
    }
    guard at == end else { throw damage("a frame holds more than its records") }
  }
}

/// A window over a segment file, so that a frame is looked at in memory and read once.
final class SegmentReader {
  let file: any File
  let size: Int
  private var window: [UInt8] = []
  private let least: Int
  private var start = 0

  static let windowSize = 4 << 20

  /// - Parameter least: bytes that are read at once, or more.
  init(_ file: any File, size: Int, least: Int = SegmentReader.windowSize) {
    self.least = least
    self.file = file
    self.size = size
  }

  /// Makes the window cover `length` bytes at `offset`, or as many as the file has.
  func load(at offset: Int, _ length: Int) throws(LogError) {
    let end = min(offset + length, size)
    if offset >= start, end <= start + window.count { return }
    let count = max(0, min(max(length, least), size - offset))
    do throws(SystemError) { window = try file.bytes(upTo: count, at: UInt64(offset)) } catch {
      throw .system(error)
    }
    start = offset
  }

  /// Lends `body` a part of the file, as far as the window covers it.
  func look<Result, Failure: Error>(
    _ offset: Int, _ length: Int, _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let from = min(max(offset - start, 0), window.count)
    let range = from..<min(max(from + length, from), window.count)
    return try window.withRaw { (raw) throws(Failure) in try body(raw.extracting(range)) }
  }

  /// The header of a segment of this name and store.
  func header(
    _ name: String, of store: StoreID, in directory: String
  ) throws(LogError) -> SegmentHeader {
    try load(at: 0, LogFormat.segmentHeaderSize)
    let header: SegmentHeader
    do throws(SegmentHeader.Failure) {
      header = try look(0, LogFormat.segmentHeaderSize) {
        (raw) throws(SegmentHeader.Failure) in try SegmentHeader(raw)
      }
    } catch {
      switch error {
      case .version(let version):
        throw .unsupportedVersion(file: directory + "/" + name, version: version)
      case .damaged: throw .refused(name, "the segment header is damaged")
      }
    }
    guard header.store == store else {
      throw .refused(name, "the segment belongs to another store")
    }
    guard StoreFileName.firstLSN(of: name) == header.firstLSN else {
      throw .refused(name, "the segment's name and header disagree")
    }
    guard header.firstLSN < LogFormat.endOfFirstLSNs else {
      throw .refused(name, "its LSN is out of range")
    }
    guard size <= LogFormat.maximumSegmentSize else {
      throw .refused(name, "the file is too large")
    }
    return header
  }

  func frameHeader(at offset: Int) -> FrameHeader? {
    look(offset, LogFormat.frameHeaderSize) { FrameHeader($0, at: 0) }
  }

  func isZero(at offset: Int, _ length: Int) -> Bool { look(offset, length) { $0.isZero } }

  func checksum(_ from: Int, _ to: Int) -> UInt32 { look(from, to - from) { CRC32C.of($0) } }

  /// The offset behind the last byte that is not zero; `start` when all from there on are.
  func contentEnd(from start: Int) throws(LogError) -> Int {
    var end = start
    for offset in stride(from: start, to: size, by: Self.windowSize) {
      let length = min(Self.windowSize, size - offset)
      try load(at: offset, length)
      let last = look(offset, length) { $0.isZero ? nil : $0.array.lastIndex { $0 != 0 } }
      if let last { end = offset + last + 1 }
    }
    return end
  }

  /// The payload length of an intact record that ends before `limit`.
  func recordLength(at offset: Int, limit: Int, trusts: Bool) -> Int? {
    look(offset, limit - offset) { span in
      let length = SegmentedLog.recordLength(span)
      guard length >= 0, LogFormat.recordSize(payload: length) <= span.byteCount else { return nil }
      let record = span.extracting(0..<LogFormat.recordHeaderSize + length)
      return trusts || SegmentedLog.isIntact(record) ? length : nil
    }
  }

  /// The first frame header at or after `offset` that was written for this segment and place.
  func nextFrame(from offset: Int, salt: UInt64) throws(LogError) -> (FrameHeader, Int)? {
    let last = size - LogFormat.frameHeaderSize
    for place in stride(from: offset, through: last, by: LogFormat.frameAlignment) {
      try load(at: place, LogFormat.frameHeaderSize)
      if let header = frameHeader(at: place), header.salt == salt, Int(header.offset) == place {
        return (header, place)
      }
    }
    return nil
  }
}
