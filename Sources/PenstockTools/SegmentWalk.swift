// SPDX-License-Identifier: Apache-2.0
internal import PenstockLog
internal import PenstockSystem

/// What a walk over a segment tells as it goes, in the order of the file.
protocol SegmentVisitor: AnyObject {
  /// A frame whose header is whole, before its records.
  func frame(_ header: FrameHeader, in segment: SegmentSummary) throws(ToolError)
  func record(_ place: RecordPlace, _ payload: RawSpan) throws(ToolError)
  /// Told before what follows the damage.
  func damage(_ damage: Damage, in segment: SegmentSummary) throws(ToolError)
}

extension SegmentVisitor {
  func frame(_ header: FrameHeader, in segment: SegmentSummary) throws(ToolError) {}
  func record(_ place: RecordPlace, _ payload: RawSpan) throws(ToolError) {}
  func damage(_ damage: Damage, in segment: SegmentSummary) throws(ToolError) {}
}

/// Where a record stands.
struct RecordPlace {
  var segment: String
  var ordinal: UInt32
  /// Of the record's header, in bytes.
  var offset: Int
  /// Nil where the damage before it leaves open which one it is.
  var lsn: LSN?
  /// Whether it was found by its own checksum alone, without a frame that is whole: it may never
  /// have been acknowledged.
  var isLoose: Bool
}

/// A part of a segment that is not what the format says.
struct Damage: Hashable {
  var file: String
  /// Where it begins, in bytes.
  var offset: Int
  /// Where the next whole frame begins, or the file ends.
  var end: Int
  /// The first LSN that should be there, where it is known.
  var firstLSN: LSN?
  /// The last LSN that should be there; nil where nothing behind it tells.
  var lastLSN: LSN?
  var reason: String

  var lsnText: String {
    guard let firstLSN else { return "LSN not known" }
    guard let lastLSN else { return "LSN \(firstLSN) and what followed" }
    if lastLSN < firstLSN { return "no record" }
    return lastLSN == firstLSN ? "LSN \(firstLSN)" : "LSN \(firstLSN) to \(lastLSN)"
  }

  var json: JSON {
    .object([
      ("file", .string(file)), ("offset", .int(offset)), ("end", .int(end)),
      ("firstLSN", .lsn(firstLSN?.value)), ("lastLSN", .lsn(lastLSN?.value)),
      ("reason", .string(reason)),
    ])
  }
}

/// What a walk found in one segment.
struct SegmentSummary {
  struct Seal: Hashable {
    var records: UInt64
    var givenOut: LSN
    var fileSize: UInt64
    /// Chain value that the next segment continues.
    var checksum: UInt32
  }

  var name: String
  /// From the name.
  var firstLSN: LSN
  /// In bytes.
  var size = 0
  var header: SegmentHeader?
  var headerFault: String?
  /// From the header, or else from the first frame.
  var salt: UInt64?
  var frames = 0
  var records: UInt64 = 0
  /// Of the last record that was read.
  var lastLSN: LSN?
  /// The highest LSN that a frame says was durable.
  var durableLSN = LSN(0)
  var seal: Seal?
  var damages: [Damage] = []
  /// Why a part of the file could not be read, and where the first such part begins.
  var unreadable: (offset: Int, reason: String)?
  /// Frames up to the first damage: where they end, and what the next one must carry.
  var sound = Sound()

  struct Sound: Hashable {
    var offset = LogFormat.segmentHeaderSize
    var chain: UInt32 = 0
    var nextLSN = LSN(0)
    var records: UInt64 = 0
    /// Whether the last of them is the seal.
    var isSealed = false
  }

  /// The header of a segment; nil when the file is gone, or the header is not valid.
  static func header(
    _ name: String, _ context: ToolContext
  ) throws(ToolError) -> SegmentHeader? {
    let window = try unlessMissing { () throws(SystemError) in
      try FileWindow(context.fileSystem.open(context.path(name), .readOnly))
    }
    guard let window else { return nil }
    let header: SegmentHeader? = window.look(0, LogFormat.segmentHeaderSize) { raw in
      do throws(SegmentHeader.Failure) { return try SegmentHeader(raw) } catch { return nil }
    }
    try window.close()
    return header
  }

  /// Whether something behind the first damage shows that data from there on was durable.
  var isAcknowledgedDamaged: Bool {
    guard let first = damages.first else { return false }
    return first.firstLSN.map { durableLSN >= $0 } ?? true
  }
}

/// Reads a segment frame by frame, and goes on behind damage at the next frame that was written for
/// its place with the segment's salt. Believes nothing without its checksum and takes no more
/// memory than the file is long.
struct SegmentWalk {
  let window: FileWindow
  let visitor: any SegmentVisitor
  /// Whether records of damaged frames are looked for by their own checksums.
  var salvages = false
  private(set) var summary: SegmentSummary
  /// What the next frame must carry; nil behind damage.
  private var chain: UInt32?
  private var nextLSN: LSN?
  private var offset = LogFormat.segmentHeaderSize
  private var isOver = false
  /// The place of a fault at the last look, and where the next frame was then.
  private var suspected: (fault: Int, next: Int?)?

  init(_ name: String, firstLSN: LSN, _ window: FileWindow, _ visitor: any SegmentVisitor) {
    self.window = window
    self.visitor = visitor
    summary = SegmentSummary(name: name, firstLSN: firstLSN, size: window.size)
  }

  private var ordinal: UInt32 { summary.header?.ordinal ?? 0 }

  mutating func run() throws(ToolError) -> SegmentSummary {
    try readHeader()
    while summary.seal == nil, !isOver, offset < window.size {
      if let header = frameHere() {
        try step(header)
      } else if window.isZeroToEnd(from: offset) {
        break
      } else {
        try skip()
      }
    }
    summary.size = window.size
    if summary.seal != nil, !window.isZeroToEnd(from: offset) {
      try note(offset, window.size, nextLSN, nil, "bytes other than zero behind the seal")
    }
    summary.unreadable = window.unreadable.first.map { ($0.range.lowerBound, $0.reason) }
    return summary
  }

  private mutating func readHeader() throws(ToolError) {
    do throws(SegmentHeader.Failure) {
      let header = try window.look(0, LogFormat.segmentHeaderSize) {
        (raw) throws(SegmentHeader.Failure) in try SegmentHeader(raw)
      }
      summary.header = header
      summary.salt = header.salt
      chain = header.checksum
      nextLSN = header.firstLSN
      summary.sound.chain = header.checksum
      summary.sound.nextLSN = header.firstLSN
    } catch {
      if case .version(let version) = error {
        throw StoreListing.unknownVersion(summary.name, version)
      }
      let reason =
        window.failure(in: 0..<LogFormat.segmentHeaderSize) ?? "the segment header is damaged"
      summary.headerFault = reason
      summary.sound.nextLSN = summary.firstLSN
      // The salt of the first frame that stands in its place will do.
      summary.salt = window.nextFrame(from: 0, salt: nil)?.header.salt
      let end = min(LogFormat.segmentHeaderSize, window.size)
      try note(0, end, summary.firstLSN, LSN(summary.firstLSN.value &- 1), reason)
    }
  }

  /// The frame header at `offset`, if it is one of this segment and place that fits the file.
  private func frameHere() -> FrameHeader? {
    let found: FrameHeader? = window.look(offset, LogFormat.frameHeaderSize) {
      FrameHeader($0, at: 0)
    }
    guard let found, found.salt == summary.salt, Int(found.offset) == offset else { return nil }
    let extent = Int(found.extent)
    guard extent.isMultiple(of: LogFormat.frameAlignment),
      extent >= LogFormat.frameHeaderSize + Int(found.bodyLength), offset + extent <= window.size
    else { return nil }
    return found
  }

  /// Takes a frame whose header is right, whatever its body is.
  private mutating func step(_ header: FrameHeader) throws(ToolError) {
    let end = offset + Int(header.extent)
    let last = LSN(header.firstLSN.value &+ UInt64(header.count) &- 1)
    var faults: [String] = []
    if let chain, chain != header.previous {
      faults.append("the frame does not continue the one before it")
    }
    if let nextLSN, nextLSN != header.firstLSN {
      faults.append("the frame begins with LSN \(header.firstLSN), not \(nextLSN)")
    }
    if header.kind != .records, header.count != 0 {
      faults.append("a frame without records counts some")
    }
    let start = offset + LogFormat.frameHeaderSize
    let length = Int(header.bodyLength)
    var isBodyWhole = window.checksum(start, length) == header.bodyChecksum
    if !isBodyWhole {
      faults.append("the frame's records are damaged")
    } else if !window.isZero(start + length, end - start - length) {
      faults.append("the frame's padding is damaged")
    }
    var places: [(place: RecordPlace, length: Int)] = []
    if header.kind == .records, isBodyWhole {
      if let found = records(header, start, length) {
        places = found
      } else {
        isBodyWhole = false
        faults.append("the frame's records do not fill it exactly")
      }
    }
    var seal: SegmentSummary.Seal?
    if header.kind == .seal, isBodyWhole {
      seal = sealBody(header, start, length)
      if let fault = sealFault(seal, end) { faults.append(fault) }
    }
    if let unreadable = window.failure(in: offset..<end) { faults = [unreadable] }
    if !faults.isEmpty {
      let next = window.nextFrame(from: end, salt: summary.salt)
      guard try isStanding(next?.offset) else { return }
      isOver = next == nil
      try note(offset, end, header.firstLSN, last, faults.joined(separator: "; "))
    }
    summary.frames += 1
    summary.durableLSN = max(summary.durableLSN, header.durableLSN)
    try visitor.frame(header, in: summary)
    for (place, length) in places {
      try window.look(place.offset + LogFormat.recordHeaderSize, length) {
        (payload) throws(ToolError) in try visitor.record(place, payload)
      }
    }
    summary.records += UInt64(places.count)
    if !places.isEmpty { summary.lastLSN = last }
    if header.kind == .records, !isBodyWhole, salvages {
      try findRecords(start, start + length, header.firstLSN, UInt64(header.count))
    }
    summary.seal = seal
    offset = end
    chain = header.headerChecksum
    nextLSN = last.advanced(by: 1)
    if summary.damages.isEmpty {
      summary.sound = .init(
        offset: end, chain: header.headerChecksum, nextLSN: last.advanced(by: 1),
        records: summary.records, isSealed: seal != nil)
    }
  }

  /// Whether the fault at `offset` is in the file, and not only in what was read while somebody was
  /// writing it. A frame is written before the next one: so the fault is there if it is seen again
  /// after the next frame was.
  private mutating func isStanding(_ next: Int?) throws(ToolError) -> Bool {
    if let suspected, suspected == (offset, next) { return true }
    suspected = (offset, next)
    try window.refresh()
    return false
  }

  /// Goes on behind a place where no frame is.
  private mutating func skip() throws(ToolError) {
    let next = window.nextFrame(from: offset + LogFormat.frameAlignment, salt: summary.salt)
    guard try isStanding(next?.offset) else { return }
    let last = next.map { LSN($0.header.firstLSN.value &- 1) }
    var end = next?.offset ?? window.size
    if let next {
      summary.durableLSN = max(summary.durableLSN, next.header.durableLSN)
      // One that the end of the file cuts leaves nothing to go on with.
      isOver = next.offset + Int(next.header.extent) > window.size
      if isOver { end = window.size }
    }
    isOver = isOver || next == nil
    let reason = window.failure(in: offset..<end) ?? "no valid frame stands here"
    try note(offset, end, nextLSN, last, reason)
    if salvages {
      try findRecords(offset + LogFormat.frameHeaderSize, end, nextLSN, .max)
    }
    offset = end
    chain = nil
    nextLSN = nil
  }

  private mutating func note(
    _ offset: Int, _ end: Int, _ first: LSN?, _ last: LSN?, _ reason: String
  ) throws(ToolError) {
    let damage = Damage(
      file: summary.name, offset: offset, end: end, firstLSN: first, lastLSN: last,
      reason: reason)
    // So many in one file are one damage for whoever reads of it.
    if summary.damages.count < 10_000 { summary.damages.append(damage) }
    try visitor.damage(damage, in: summary)
  }

  /// The records of a frame whose body is whole; nil when they do not fill it exactly.
  private func records(
    _ header: FrameHeader, _ start: Int, _ length: Int
  ) -> [(place: RecordPlace, length: Int)]? {
    window.look(start, length) { body in
      var found: [(place: RecordPlace, length: Int)] = []
      var at = 0
      for index in 0..<Int(header.count) {
        guard let payload = RecordBytes.length(body, at) else { return nil }
        let place = RecordPlace(
          segment: summary.name, ordinal: ordinal, offset: start + at,
          lsn: header.firstLSN.advanced(by: index), isLoose: false)
        found.append((place, payload))
        at += LogFormat.recordSize(payload: payload)
      }
      return at == body.byteCount ? found : nil
    }
  }

  private func sealBody(
    _ header: FrameHeader, _ start: Int, _ length: Int
  ) -> SegmentSummary.Seal? {
    window.look(start, length) { body in
      var cursor = ByteCursor()
      do throws(BytesTooShort) {
        return SegmentSummary.Seal(
          records: try cursor.u64(body), givenOut: LSN(try cursor.u64(body)),
          fileSize: try cursor.u64(body), checksum: header.headerChecksum)
      } catch { return nil }
    }
  }

  private func sealFault(_ seal: SegmentSummary.Seal?, _ end: Int) -> String? {
    guard let seal else { return "the seal is too short" }
    guard seal.fileSize == UInt64(end) else {
      return "the seal names \(seal.fileSize) bytes, and stands at the end of \(end)"
    }
    // Behind damage it is no surprise that records are missing.
    guard summary.damages.isEmpty else { return nil }
    guard seal.records == summary.records else {
      return "the seal counts \(seal.records) records, and \(summary.records) are there"
    }
    guard let next = nextLSN, seal.givenOut.value &+ 1 >= next.value,
      seal.givenOut.value < 1 << 56
    else { return "the seal names LSN \(seal.givenOut) as the last one" }
    return nil
  }

  /// Hands out records that are whole by their own checksum in a part of the file without a frame
  /// that is. Each one's LSN is known as long as none before it is damaged.
  ///
  /// - Complexity: a damaged length costs one checksum of what it names; a budget bounds their sum.
  private func findRecords(
    _ start: Int, _ end: Int, _ first: LSN?, _ count: UInt64
  ) throws(ToolError) {
    var budget = 64 << 20
    var at = start
    var lsn = first
    var left = count
    while at + LogFormat.recordHeaderSize < end, left > 0, budget > 0 {
      let header = UInt64(littleEndian: window.word(at))
      let length = Int(header >> 32)
      let size = LogFormat.recordSize(payload: length)
      guard length >= 16, at + size <= end else {
        // Zeros end a frame; anything else hides how many records follow.
        if header != 0 { lsn = nil }
        at += LogFormat.recordAlignment
        continue
      }
      budget -= length
      let isWhole = window.look(at, LogFormat.recordHeaderSize + length) { raw in
        RecordBytes.length(raw, 0) == length
      }
      guard isWhole else {
        lsn = nil
        at += LogFormat.recordAlignment
        continue
      }
      let place = RecordPlace(
        segment: summary.name, ordinal: ordinal, offset: at, lsn: lsn, isLoose: true)
      try window.look(at + LogFormat.recordHeaderSize, length) { (payload) throws(ToolError) in
        try visitor.record(place, payload)
      }
      lsn = lsn?.advanced(by: 1)
      left -= 1
      at += size
    }
  }
}

/// A record as bytes: checksum 0/4, payload length 4/4, payload.
enum RecordBytes {
  /// The payload length of a record at `offset` that is whole by its checksum.
  static func length(_ span: borrowing RawSpan, _ offset: Int) -> Int? {
    var cursor = ByteCursor(offset)
    do throws(BytesTooShort) {
      let checksum = try cursor.u32(span)
      let length = Int(try cursor.u32(span))
      guard length <= span.byteCount - cursor.offset else { return nil }
      let end = cursor.offset + length
      guard CRC32C.of(span.extracting(offset + 4..<end)) == checksum else { return nil }
      return length
    } catch { return nil }
  }
}

extension FileWindow {
  /// Eight bytes as they stand; zero at the end of the file.
  func word(_ offset: Int) -> UInt64 {
    look(offset, 8) { raw in
      var cursor = ByteCursor()
      do throws(BytesTooShort) { return try cursor.u64(raw).littleEndian } catch { return 0 }
    }
  }

  func isZeroToEnd(from offset: Int) -> Bool {
    var at = offset
    while at < size {
      let length = min(at == offset ? 4096 : Self.windowSize, size - at)
      guard isZero(at, length) else { return false }
      at += length
    }
    return true
  }
}
