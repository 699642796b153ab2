// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem

/// `penstock backup`: copies a store, in use or not, and proves the copy.
///
/// The state at the end of the log is computed from the store's files; what leads to it is copied;
/// the copy is replayed, and only when both state hashes are equal is it called verified. Segments
/// that the target holds already are not copied again, and none is ever removed from it, so a point
/// in time between two backups can be restored as well.
public struct Backup {
  public var context: ToolContext
  public var target: String

  public init(_ context: ToolContext, target: String) {
    self.context = context
    self.target = context.elsewhere(target).directory
  }

  public struct Report: Sendable {
    public var lsn: UInt64 = 0
    public var stateHash = ""
    public var time: Int64 = 0
    public var copiedFiles = 0
    public var copiedBytes: UInt64 = 0
    public var keptFiles = 0
    public var target = ""
    /// Places that are damaged in the store, and so in the copy, without being part of its state:
    /// bytes of messages alone.
    var damages: [Damage] = []

    public var isVerified: Bool { damages.isEmpty }

    public var json: JSON {
      .object([
        ("verified", .bool(isVerified)), ("lsn", .unsigned(lsn)), ("stateHash", .string(stateHash)),
        ("time", .integer(time)), ("copiedFiles", .int(copiedFiles)),
        ("copiedBytes", .unsigned(copiedBytes)), ("keptFiles", .int(keptFiles)),
        ("target", .string(target)), ("damages", .array(damages.map(\.json))),
      ])
    }

    public var text: String {
      var lines = damages.map {
        "DAMAGE  \($0.file), offset \($0.offset) to \($0.end): \($0.reason) (\($0.lsnText))"
      }
      let verdict = isVerified ? "verified" : "NOT VERIFIED in full, the store itself is damaged"
      lines.append(
        "\(verdict): \(target) holds the store up to LSN \(lsn), \(TimeText.text(time)), state "
          + "hash \(stateHash)")
      lines.append(
        "copied \(copiedFiles) files (\(copiedBytes) bytes), \(keptFiles) were there already")
      return lines.joined(separator: "\n")
    }
  }

  /// - Durability: the backup is durable on return.
  /// - Throws: `damaged` when the store, or the copy, is not whole; `refused` when the target is
  ///   something else. The backup that was there before is then still the one that counts.
  public func run() throws(ToolError) -> Report {
    let target = context.elsewhere(target)
    guard case .whole(let store) = try StoreListing(context).store else {
      throw ToolError(.damaged, "STORE is missing or damaged: verify says what to do")
    }
    try openTarget(target)
    let lock: any FileLock
    do throws(SystemError) {
      lock = try context.fileSystem.lock(target.path(Manifest.lock))
    } catch {
      throw ToolError(
        .refused,
        error.isLocked ? "another backup to \(target.directory) is under way" : error.description)
    }
    defer { lock.release() }
    // Kept over the attempts, so that each one copies only what the one before had no time for.
    var manifest = try Manifest.read(target) ?? Manifest(store: store.store.description)
    guard manifest.store == store.store.description else {
      throw ToolError(
        .refused,
        "\(target.directory) is a backup of store \(manifest.store), not of \(store.store); name "
          + "another directory")
    }
    return try Attempts.run { () throws(ToolError) in try attempt(target, store, &manifest) }
  }

  private func attempt(
    _ target: ToolContext, _ store: StoreFile, _ manifest: inout Manifest
  ) throws(ToolError) -> Report {
    let source = try Replay.run(context, to: .newest, task: "replaying the store")
    // What only the page cache holds must not be in a backup that outlives it (L3).
    try sync(source.cut.segment)
    if let last = manifest.points.last, last.lsn > source.lsn.value {
      throw ToolError(
        .refused,
        "\(target.directory) holds LSN \(last.lsn), and the store ends with \(source.lsn): the "
          + "store is older than its backup. Name another directory")
    }
    var report = Report()
    report.target = target.directory

    // The listing of before may lack what the replay reached.
    let files = try StoreListing(context)
    let segments = files.segments.filter { $0.firstLSN <= source.cut.header.firstLSN }
    for (index, segment) in segments.enumerated() {
      context.progress(ToolProgress("copying", segments: index, of: segments.count))
      let isLast = segment.name == source.cut.segment
      let cut = isLast ? source.cut : nil
      try copy(segment.name, target, cut: cut, &manifest, &report)
    }
    for name in files.checkpoints {
      guard let found = try FoundCheckpoint.read(name, context, store: store.store)?.found else {
        throw Replay.vanished
      }
      // A damaged one is no use to anybody; a later one leads past the point.
      guard let header = found.header, header.lsn <= source.lsn else { continue }
      try copy(name, target, cut: nil, &manifest, &report)
    }
    // A store that began with version 1 has none.
    if case .whole = files.head { try FileCopy(target).writeHead(source.cut.header) }
    try require(
      FileCopy(target).copy(StoreFileName.store, to: StoreFileName.store, from: context) != nil)
    manifest.files[StoreFileName.store] = try fingerprint(StoreFileName.store, target)
    // Compaction may have taken a segment before it was listed.
    if let missing = try Replay.missing(source.state, in: target).first {
      throw ToolError(
        .vanished,
        "segment number \(missing), in which messages live, is not there: either the store was "
          + "busy, then run it again, or it is lost, then verify says what to do")
    }
    let copy = try Replay.run(target, to: .newest, task: "replaying the copy")
    guard copy.stateHash == source.stateHash, copy.lsn == source.lsn else {
      throw ToolError(
        .damaged,
        "NOT verified: at LSN \(copy.lsn) the copy's state hash is \(copy.stateHash); the store's "
          + "is \(source.stateHash) at LSN \(source.lsn). Do not trust \(target.directory)")
    }
    report.lsn = source.lsn.value
    report.stateHash = source.stateHash
    report.time = source.state.time.milliseconds
    manifest.points.removeAll { $0.lsn == report.lsn }
    manifest.points.append(
      .init(lsn: report.lsn, time: report.time, stateHash: report.stateHash))
    try manifest.write(target)
    return report
  }

  private func require(_ isThere: Bool) throws(ToolError) {
    if !isThere { throw Replay.vanished }
  }

  private func sync(_ name: String) throws(ToolError) {
    let path = context.path(name)
    _ = try unlessMissing { () throws(SystemError) in
      let file = try context.fileSystem.open(path, .readOnly)
      try file.syncData()
      try file.close()
    }
  }

  /// Makes the target, or sees that it is a backup.
  private func openTarget(_ target: ToolContext) throws(ToolError) {
    let files = context.fileSystem
    guard target.directory != context.directory else {
      throw ToolError(.refused, "the target is the store itself; name another directory")
    }
    let names = try unlessMissing { () throws(SystemError) in try files.list(target.directory) }
    guard let names else {
      return try system { () throws(SystemError) in
        try files.createDirectory(target.directory)
        try files.syncDirectory(Restore.parent(of: target.directory))
      }
    }
    guard names.isEmpty || names.contains(where: Manifest.names.contains) else {
      throw ToolError(
        .refused, "\(target.directory) holds something else than a backup; name a new directory")
    }
  }

  /// Copies a file unless the target has it, and reads the copy back.
  private func copy(
    _ name: String, _ target: ToolContext, cut: Replay.Cut?, _ manifest: inout Manifest,
    _ report: inout Report
  ) throws(ToolError) {
    // The end of a segment that goes on is copied each time.
    if cut == nil, manifest.files[name]?.isDamaged == false, try isSame(name, target) {
      report.keptFiles += 1
      return
    }
    guard let written = try FileCopy(target).copy(name, to: name, from: context, cut: cut) else {
      throw Replay.vanished
    }
    var found = try fingerprint(name, target)
    let isWhole =
      cut.map { !$0.isSealed } ?? false
      || (found.size == written.size && found.checksum == written.checksum)
    guard isWhole else {
      throw ToolError(.damaged, "\(target.path(name)) does not read back as it was written")
    }
    if name.hasSuffix(StoreFileName.segmentSuffix) {
      let damages = try damages(name, target)
      found.isDamaged = !damages.isEmpty
      report.damages += damages
    }
    manifest.files[name] = found
    report.copiedFiles += 1
    report.copiedBytes += found.size
  }

  private func fingerprint(
    _ name: String, _ target: ToolContext
  ) throws(ToolError) -> Manifest.File {
    guard let found = try FileCopy(target).fingerprint(name) else {
      throw ToolError(.unreadable, "\(target.path(name)) vanished while it was written")
    }
    return Manifest.File(size: found.size, checksum: found.checksum)
  }

  /// Rot must not go into a backup unseen, also where no replay looks.
  private func damages(_ name: String, _ target: ToolContext) throws(ToolError) -> [Damage] {
    var scan = try StoreScan(target, task: "checking")
    guard let summary = try scan.run(Silent(), only: [name]).first else { throw Replay.vanished }
    if let (_, reason) = summary.unreadable {
      throw ToolError(.unreadable, "\(target.path(name)): \(reason)")
    }
    return summary.damages
  }

  /// Whether the target's copy has the same size, first and last sector: header and seal. The
  /// seal's checksum chains everything before it.
  private func isSame(_ name: String, _ target: ToolContext) throws(ToolError) -> Bool {
    func ends(_ context: ToolContext) throws(ToolError) -> [[UInt8]]? {
      try unlessMissing { () throws(SystemError) in
        let window = try FileWindow(context.fileSystem.open(context.path(name), .readOnly))
        let sector = LogFormat.sectorSize
        let first = window.look(0, sector) { $0.array }
        let last = window.look(max(0, window.size - sector), sector) { $0.array }
        return [Array("\(window.size)".utf8), first, last]
      }
    }
    guard let ours = try ends(context) else { throw Replay.vanished }
    return try ends(target) == ours
  }
}
