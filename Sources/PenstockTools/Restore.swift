// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem

/// `penstock restore`: makes a store from a backup, as it was at the backup's end or at a point in
/// time within what the backup holds.
///
/// Builds it beside its place, replays it, and gives it its name last, so there is a whole store or
/// none. The backup is only read.
public struct Restore {
  public enum Point: Sendable {
    /// The newest verified backup.
    case end
    case lsn(UInt64)
    /// Milliseconds since 1970.
    case time(Int64)
  }

  /// The backup's.
  public var context: ToolContext
  public var directory: String
  public var point: Point

  public init(_ context: ToolContext, to directory: String, point: Point = .end) {
    self.context = context
    self.directory = context.elsewhere(directory).directory
    self.point = point
  }

  public struct Report: Sendable {
    public var directory = ""
    public var lsn: UInt64 = 0
    public var time: Int64 = 0
    public var stateHash = ""
    public var queues = 0
    public var messages = 0
    /// Segments that hold messages which were damaged before the backup was made.
    public var damagedFiles: [String] = []

    public var json: JSON {
      .object([
        ("verified", .bool(true)), ("directory", .string(directory)), ("lsn", .unsigned(lsn)),
        ("time", .integer(time)), ("stateHash", .string(stateHash)), ("queues", .int(queues)),
        ("messages", .int(messages)),
        ("damagedFiles", .array(damagedFiles.map { .string($0) })),
      ])
    }

    public var text: String {
      "verified: \(directory) is the store at LSN \(lsn), \(TimeText.text(time)): \(messages) "
        + "messages in \(queues) queues, state hash \(stateHash)"
        + damagedFiles.map {
          "\nDAMAGE  \($0): it was damaged in the store already; verify says where"
        }.joined()
    }
  }

  /// - Durability: the store is durable on return.
  /// - Throws: `refused` when there is something at the place, or the backup does not hold the
  ///   point; `damaged` when the backup is damaged.
  public func run() throws(ToolError) -> Report {
    let files = context.fileSystem
    guard let manifest = try Manifest.read(context), let newest = manifest.points.last else {
      throw ToolError(
        .refused, "\(context.directory) is no finished backup: it has no file \(Manifest.name)")
    }
    let isThere = try system { () throws(SystemError) in try files.status(directory) != nil }
    guard !isThere else {
      throw ToolError(
        .refused, "\(directory) is there already; restore to a new name, then move it")
    }
    let wanted: Replay.Point =
      switch point {
      case .end: .lsn(LSN(newest.lsn))
      case .lsn(let lsn): .lsn(LSN(lsn))
      case .time(let time): .time(time)
      }
    if case .time(let time) = point, time > newest.time {
      throw ToolError(
        .refused, "the backup ends at \(TimeText.text(newest.time)), LSN \(newest.lsn)")
    }
    if case .lsn(let lsn) = point, lsn > newest.lsn || lsn == 0 {
      throw ToolError(.refused, "LSN \(lsn) is not in the backup: it ends with LSN \(newest.lsn)")
    }
    let source = try Replay.run(context, to: wanted, task: "replaying the backup")
    for known in manifest.points where known.lsn == source.lsn.value {
      guard known.stateHash == source.stateHash else {
        throw ToolError(
          .damaged,
          "the backup's state hash at LSN \(known.lsn) is \(source.stateHash), and was "
            + "\(known.stateHash) when it was verified")
      }
    }
    var report = Report()
    let place = try emptyPlace()
    try build(place, source, manifest, &report)
    let copy = try Replay.run(place, to: .newest, task: "replaying the store")
    guard copy.stateHash == source.stateHash else {
      throw ToolError(
        .damaged,
        "NOT verified: the restored state hash is \(copy.stateHash), not \(source.stateHash); what "
          + "was made is in \(place.directory)")
    }
    try system { () throws(SystemError) in
      try files.syncDirectory(place.directory)
      try files.rename(place.directory, to: directory)
      try files.syncDirectory(Self.parent(of: directory))
    }
    report.directory = directory
    report.lsn = source.lsn.value
    report.time = source.state.time.milliseconds
    report.stateHash = source.stateHash
    report.queues = source.state.queueCount
    report.messages = source.state.liveCount
    return report
  }

  /// A new directory beside the place.
  private func emptyPlace() throws(ToolError) -> ToolContext {
    let files = context.fileSystem
    for number in 1...1000 {
      let place = context.elsewhere("\(directory).restoring-\(number)")
      let isNew = try system { () throws(SystemError) in
        guard try files.status(place.directory) == nil else { return false }
        try files.createDirectory(place.directory)
        return true
      }
      if isNew { return place }
    }
    throw ToolError(.refused, "remove the directories \(directory).restoring-…")
  }

  /// How far the restored store's LSNs begin behind all that the backup knows of. The original may
  /// have gone on after the backup; what it gave out until it was lost is in handles that clients
  /// still have, and must name nothing here. 2^56 LSNs are enough for 2^16 such steps.
  private static let distance = 1 << 40

  /// The last LSN that the restored store takes for given out.
  private func givenOut(_ cut: Replay.Cut, _ manifest: Manifest) -> LSN {
    let newest = max(cut.lastLSN, LSN(manifest.points.last?.lsn ?? 0), cut.header.firstLSN)
    let far = newest.advanced(by: Self.distance)
    return far < LogFormat.endOfFirstLSNs ? far : newest.advanced(by: LogFormat.lostLSNs)
  }

  private func build(
    _ place: ToolContext, _ source: Replay.Result, _ manifest: Manifest, _ report: inout Report
  ) throws(ToolError) {
    let listing = try StoreListing(context)
    let segments = listing.segments.filter { $0.firstLSN <= source.cut.header.firstLSN }
    for (index, segment) in segments.enumerated() {
      context.progress(ToolProgress("copying", segments: index, of: segments.count))
      let next = index + 1 < segments.count ? segments[index + 1].firstLSN : nil
      if try isDead(segment.name, before: next, source) { continue }
      let isLast = segment.name == source.cut.segment
      try copy(segment.name, place, manifest, cut: isLast ? source.cut : nil, &report)
    }
    let missing = try Replay.missing(source.state, in: place)
    guard missing.isEmpty else {
      throw ToolError(
        .refused,
        "the backup does not hold LSN \(source.lsn): messages of that time were in segments "
          + "\(missing.map(String.init).joined(separator: ", ")), which it never saw")
    }
    // No other: one that leads past the point would bring back what is to be left out, and behind
    // an older one the backup need not hold every segment.
    if let checkpoint = source.checkpoint {
      try copy(StoreFileName.checkpoint(checkpoint), place, manifest, cut: nil, &report)
    }
    if case .whole = listing.head { try FileCopy(place).writeHead(source.cut.header) }
    try copy(StoreFileName.store, place, manifest, cut: nil, &report)
  }

  /// Whether a segment lies before the checkpoint's, and no message of the state is in it. The
  /// backup may have seen it only while it grew: compaction removed it before the next one.
  private func isDead(
    _ name: String, before next: LSN?, _ source: Replay.Result
  ) throws(ToolError) -> Bool {
    guard let checkpoint = source.checkpoint, let next, next <= checkpoint,
      let header = try SegmentSummary.header(name, context)
    else { return false }
    return source.state.residents[header.ordinal] == nil
  }

  /// Copies a file of the backup, if it is what was verified.
  private func copy(
    _ name: String, _ place: ToolContext, _ manifest: Manifest, cut: Replay.Cut?,
    _ report: inout Report
  ) throws(ToolError) {
    guard let known = manifest.files[name] else {
      // Of a backup that was not finished; what is needed of it was replayed.
      if cut == nil { return }
      throw ToolError(.damaged, "\(name) is not in the manifest of \(context.directory)")
    }
    let found = try FileCopy(context).fingerprint(name)
    var isKnown = found?.size == known.size && found?.checksum == known.checksum
    // A backup that was cut short may have put a longer one in its place.
    if !isKnown, !known.isDamaged { isKnown = try isSoundSegment(name) }
    guard isKnown else {
      throw ToolError(
        .damaged,
        "\(context.path(name)) is not what was verified: its checksum differs. Choose a point that "
          + "does not need it, or another backup")
    }
    if known.isDamaged { report.damagedFiles.append(name) }
    try FileCopy(place).copy(
      name, to: name, from: context, cut: cut, givenOut: cut.map { givenOut($0, manifest) })
  }

  private func isSoundSegment(_ name: String) throws(ToolError) -> Bool {
    guard StoreFileName.firstLSN(of: name) != nil else { return false }
    var scan = try StoreScan(context, task: "checking")
    let summary = try scan.run(Silent(), only: [name]).first
    return summary.map { $0.seal != nil && $0.damages.isEmpty && $0.unreadable == nil } ?? false
  }

  static func parent(of path: String) -> String {
    guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }
}
