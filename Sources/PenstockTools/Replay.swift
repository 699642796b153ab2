// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem

/// The state of a store at a point of its log, from the files alone and without changing any.
///
/// Goes on from the newest checkpoint that lies before the point and from which the log is
/// complete.
/// Ends at the end of a frame, so that what was atomic stays so.
struct Replay {
  enum Point: Hashable {
    /// As far as the files go.
    case newest
    /// The last frame that ends at or before this LSN.
    case lsn(LSN)
    /// The last frame before the first record of a later time, in milliseconds since 1970.
    case time(Int64)
  }

  /// Where the log was left.
  struct Cut: Hashable {
    var segment: String
    var header: SegmentHeader
    /// Where the last frame ends.
    var offset: Int
    /// Its chain value.
    var chain: UInt32
    /// The same two without the seal, if that is the last frame.
    var contentOffset: Int
    var contentChain: UInt32
    /// Records of the segment before it.
    var records: UInt64
    var isSealed: Bool
    /// Of the last record before it, or the last one given out, if that frame is a seal.
    var lastLSN: LSN
  }

  struct Result {
    var state: State
    /// Of the last record in the state.
    var lsn: LSN
    var checkpoint: LSN?
    var cut: Cut

    var stateHash: String { Hex.text(state.stateHash()) }
  }

  let context: ToolContext
  let point: Point
  let task: String

  /// - Throws: `vanished` when compaction removed files meanwhile; `damaged` when the log is not
  ///   whole up to the point; `refused` when it does not hold the point.
  static func run(
    _ context: ToolContext, to point: Point, task: String
  ) throws(ToolError) -> Result {
    try Replay(context: context, point: point, task: task).run()
  }

  private func run() throws(ToolError) -> Result {
    let listing = try StoreListing(context)
    if case .newest = point { try checkHead(listing) }
    var durable = LSN(0)
    var reason = ToolError(.damaged, "\(context.directory) holds no log from its first record on")
    for name in listing.checkpoints.reversed() {
      guard let (found, state) = try FoundCheckpoint.read(name, context, store: listing.storeID)
      else { throw Self.vanished }
      guard let header = found.header, let state else { continue }
      durable = max(durable, header.lsn)
      guard isBefore(header, state) else { continue }
      do throws(ToolError) {
        return try replay(listing, state, header, durable)
      } catch {
        // The log may be whole from an older one on.
        if error.kind == .vanished { throw error }
        reason = error
      }
    }
    guard listing.segments.first?.firstLSN == LSN(1) else { throw reason }
    return try replay(listing, State(), nil, durable)
  }

  static let vanished = ToolError(
    .vanished, "files were removed while they were read: the store was busy; run it again")

  private func isBefore(_ header: CheckpointHeader, _ state: State) -> Bool {
    switch point {
    case .newest: true
    case .lsn(let lsn): header.lsn <= lsn
    case .time(let time): state.time.milliseconds <= time
    }
  }

  private func replay(
    _ listing: StoreListing, _ state: State, _ base: CheckpointHeader?, _ durable: LSN
  ) throws(ToolError) -> Result {
    let first = base?.firstLSN ?? LSN(1)
    let visitor = ReplayVisitor(state, base?.lsn ?? LSN(0), point)
    let covered = visitor.lsn
    let segments = listing.segments.filter { $0.firstLSN >= first }
    var expected = (ordinal: base?.ordinal ?? 0, firstLSN: first, previous: base?.previous ?? 0)
    for (index, segment) in segments.enumerated() {
      context.progress(ToolProgress(task, segments: index, of: segments.count))
      let window = try unlessMissing { () throws(SystemError) in
        try FileWindow(context.fileSystem.open(context.path(segment.name), .readOnly))
      }
      guard let window else { throw Self.vanished }
      try visitor.begin(segment.name, window, expected)
      if visitor.isDone { break }
      var walk = SegmentWalk(segment.name, firstLSN: segment.firstLSN, window, visitor)
      let summary = try walk.run()
      try visitor.end()
      try window.close()
      if visitor.isDone { break }
      if index == segments.count - 1 {
        try checkEnd(summary, durable)
      } else if let damage = summary.damages.first {
        throw ToolError(
          .damaged, "\(damage.file), offset \(damage.offset): \(damage.reason) (\(damage.lsnText))")
      }
      guard let seal = summary.seal, let header = summary.header else {
        if index == segments.count - 1 { break }
        throw ToolError(
          .damaged, "\(segment.name) ends without its seal, and is not the newest segment")
      }
      expected = (header.ordinal &+ 1, seal.givenOut.advanced(by: 1), seal.checksum)
    }
    guard let cut = visitor.cut else {
      throw ToolError(.damaged, "the segment that begins with LSN \(first) is missing")
    }
    guard cut.lastLSN >= covered else {
      throw visitor.isDone
        ? ToolError(.refused, "no state can be had between LSN \(cut.lastLSN) and \(covered)")
        : ToolError(
          .damaged, "the log ends with LSN \(cut.lastLSN), before its checkpoint \(covered)")
    }
    if case .lsn(let wanted) = point, !visitor.isDone, wanted > cut.lastLSN {
      throw ToolError(
        .refused, "LSN \(wanted) is not in \(context.directory): it ends with LSN \(visitor.lsn)")
    }
    return Result(state: visitor.state, lsn: visitor.lsn, checkpoint: base?.lsn, cut: cut)
  }

  /// Segments in which messages of a state live and that a directory lacks, by ordinal.
  static func missing(_ state: State, in context: ToolContext) throws(ToolError) -> [UInt32] {
    var missing = Set(state.residents.keys)
    for segment in try StoreListing(context).segments where !missing.isEmpty {
      if let header = try SegmentSummary.header(segment.name, context) {
        missing.remove(header.ordinal)
      }
    }
    return missing.sorted()
  }

  /// Whether the newest segments are there: what is not can be missed by nothing else.
  private func checkHead(_ listing: StoreListing) throws(ToolError) {
    guard let store = listing.store.content else {
      throw ToolError(.damaged, "STORE is missing or damaged: verify says what to do")
    }
    guard case .whole(let slots) = listing.head else {
      if case .missing = listing.head, store.version == 1 { return }
      throw ToolError(.damaged, "HEAD is missing or damaged: verify says what to do")
    }
    let ours = slots.compactMap(\.self).filter { $0.store == store.store }
    guard let begun = ours.map(\.ordinal).max() else {
      throw ToolError(.damaged, "HEAD is another store's: verify says what to do")
    }
    guard let name = listing.segments.last?.name else {
      throw ToolError(.damaged, "the store's segments are missing")
    }
    // A newest segment without a header is found out elsewhere.
    guard let newest = try SegmentSummary.header(name, context), newest.ordinal < begun else {
      return
    }
    throw ToolError(
      .damaged,
      "HEAD counts \(UInt64(begun) + 1) segments, and the newest that is there is number "
        + "\(UInt64(newest.ordinal) + 1): what was acknowledged behind it is missing")
  }

  /// - Parameter durable: LSN of the newest checkpoint.
  private func checkEnd(_ newest: SegmentSummary, _ durable: LSN) throws(ToolError) {
    let end = NewestEnd(newest, checkpoint: durable)
    // What is behind the point does not matter.
    if case .lsn(let wanted) = point, wanted < end.nextLSN { return }
    guard end.isDamage || newest.unreadable != nil else { return }
    // Bytes that were never acknowledged are no part of the log; this is.
    throw ToolError(
      .damaged,
      "\(newest.name), offset \(end.offset), LSN \(end.nextLSN): the end of the log is damaged; "
        + "verify says how")
  }
}

/// Applies frames, each as a whole, until the point is reached.
private final class ReplayVisitor: SegmentVisitor {
  var state: State
  var lsn: LSN
  var cut: Replay.Cut?
  /// The point was reached; nothing further counts.
  private(set) var isDone = false
  private var isBroken = false
  private let point: Replay.Point
  /// Records up to this one are in the state that the replay goes on from.
  private let covered: LSN
  private var pending: (header: FrameHeader, entries: [(Entry, RecordPlace, Int)])?

  init(_ state: State, _ lsn: LSN, _ point: Replay.Point) {
    self.state = state
    self.lsn = lsn
    covered = lsn
    self.point = point
  }

  func begin(
    _ name: String, _ window: FileWindow,
    _ expected: (ordinal: UInt32, firstLSN: LSN, previous: UInt32)
  ) throws(ToolError) {
    let found: SegmentHeader? = window.look(0, LogFormat.segmentHeaderSize) { raw in
      do throws(SegmentHeader.Failure) { return try SegmentHeader(raw) } catch { return nil }
    }
    guard let found, found.ordinal == expected.ordinal, found.firstLSN == expected.firstLSN,
      found.previous == expected.previous
    else {
      // What the point needs may be behind.
      if case .lsn(let wanted) = point, wanted < expected.firstLSN {
        isDone = true
        return
      }
      throw ToolError(
        .damaged, "\(name) does not continue the log: LSN \(expected.firstLSN) was expected")
    }
    if case .lsn(let wanted) = point, wanted < found.firstLSN, cut != nil {
      isDone = true
      return
    }
    cut = Replay.Cut(
      segment: name, header: found, offset: LogFormat.segmentHeaderSize, chain: found.checksum,
      contentOffset: LogFormat.segmentHeaderSize, contentChain: found.checksum,
      records: 0, isSealed: false, lastLSN: LSN(found.firstLSN.value - 1))
  }

  func frame(_ header: FrameHeader, in segment: SegmentSummary) throws(ToolError) {
    try end()
    guard !isDone, !isBroken else { return }
    let last = LSN(header.firstLSN.value &+ UInt64(header.count) &- 1)
    if case .lsn(let wanted) = point, header.count > 0, last > wanted {
      isDone = true
      return
    }
    pending = (header, [])
  }

  func record(_ place: RecordPlace, _ payload: RawSpan) throws(ToolError) {
    guard pending != nil else { return }
    do throws(RecordError) {
      let entry = try Entry(payload)
      pending?.entries.append((entry, place, LogFormat.recordSize(payload: payload.byteCount)))
    } catch { throw fault(place, error) }
  }

  func damage(_ damage: Damage, in segment: SegmentSummary) throws(ToolError) {
    try end()
    isBroken = true
  }

  /// Applies the frame that was read last.
  func end() throws(ToolError) {
    guard let (header, entries) = pending else { return }
    pending = nil
    if case .time(let limit) = point, entries.contains(where: { Self.isAfter($0.0, limit) }) {
      isDone = true
      return
    }
    for (entry, place, size) in entries {
      guard let number = place.lsn, number > covered else { continue }
      let position = LogPosition(
        segment: place.ordinal, offset: UInt32(truncatingIfNeeded: place.offset))
      do throws(RecordError) {
        try state.apply(entry, lsn: number.value, position: position.packed, size: size)
      } catch { throw fault(place, error) }
      lsn = number
    }
    cut?.offset = Int(header.offset) + Int(header.extent)
    cut?.chain = header.headerChecksum
    if header.kind != .seal {
      cut?.contentOffset = Int(header.offset) + Int(header.extent)
      cut?.contentChain = header.headerChecksum
    }
    cut?.records += UInt64(entries.count)
    cut?.isSealed = header.kind == .seal
    cut?.lastLSN = LSN(header.firstLSN.value &+ UInt64(header.count) &- 1)
  }

  /// A copy tells the time of its message.
  private static func isAfter(_ entry: Entry, _ limit: Int64) -> Bool {
    if case .moved = entry.record { return false }
    return entry.time.milliseconds > limit
  }

  private func fault(_ place: RecordPlace, _ error: RecordError) -> ToolError {
    ToolError(.damaged, "\(place.segment), offset \(place.offset): \(error.description)")
  }
}
