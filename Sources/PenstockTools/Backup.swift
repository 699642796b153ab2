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

    public var json: JSON {
      .object([
        ("verified", .bool(true)), ("lsn", .unsigned(lsn)), ("stateHash", .string(stateHash)),
        ("time", .integer(time)), ("copiedFiles", .int(copiedFiles)),
        ("copiedBytes", .unsigned(copiedBytes)), ("keptFiles", .int(keptFiles)),
        ("target", .string(target)),
      ])
    }

    public var text: String {
      "verified: \(target) holds the store up to LSN \(lsn), \(TimeText.text(time)), state hash "
        + "\(stateHash)\ncopied \(copiedFiles) files (\(copiedBytes) bytes), "
        + "\(keptFiles) were there already"
    }
  }

  /// - Durability: the backup is durable on return.
  /// - Throws: `damaged` when the store, or the copy, is not whole; `refused` when the target is
  ///   something else. The backup that was there before is then still the one that counts.
  public func run() throws(ToolError) -> Report {
    try Attempts.run { () throws(ToolError) in try attempt() }
  }

  private func attempt() throws(ToolError) -> Report {
    let target = context.elsewhere(target)
    // What only the page cache holds must not be in a backup that outlives it (L3).
    let listing = try StoreListing(context)
    guard case .whole(let store) = listing.store else {
      throw ToolError(.damaged, "STORE is missing or damaged: verify says what to do")
    }
    if let newest = listing.segments.last { try sync(newest.name) }
    let source = try Replay.run(context, to: .newest, task: "replaying the store")
    var manifest = try openTarget(target, store.store, source.lsn)
    var report = Report()
    report.target = target.directory

    // The listing of before may lack what the replay reached.
    let files = try StoreListing(context)
    let segments = files.segments.filter { $0.firstLSN <= source.cut.header.firstLSN }
    for (index, segment) in segments.enumerated() {
      context.progress(
        ToolProgress(task: "copying", done: UInt64(index), total: UInt64(segments.count)))
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
    try FileCopy(target).writeHead(source.cut.header)
    for name in [StoreFileName.head, StoreFileName.store] {
      if name == StoreFileName.store {
        try require(FileCopy(target).copy(name, to: name, from: context) != nil)
      }
      manifest.files[name] = try fingerprint(name, target)
    }
    let copy = try Replay.run(target, to: .newest, task: "replaying the copy")
    guard copy.stateHash == source.stateHash, copy.lsn == source.lsn else {
      throw ToolError(
        .damaged, "NOT verified: at LSN \(copy.lsn) the copy's state hash is \(copy.stateHash); the "
          + "store's is \(source.stateHash) at LSN \(source.lsn). Do not trust \(target.directory)")
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

  /// Makes the target, or takes up the backup that is in it.
  private func openTarget(
    _ target: ToolContext, _ store: StoreID, _ lsn: LSN
  ) throws(ToolError) -> Manifest {
    let files = context.fileSystem
    let isThere = try system { () throws(SystemError) in try files.status(target.directory) != nil }
    guard target.directory != context.directory else {
      throw ToolError(.refused, "the target is the store itself; name another directory")
    }
    guard isThere else {
      try system { () throws(SystemError) in
        try files.createDirectory(target.directory)
        try files.syncDirectory(Restore.parent(of: target.directory))
      }
      return Manifest(store: store.description)
    }
    guard let manifest = try Manifest.read(target) else {
      let names = try system { () throws(SystemError) in try files.list(target.directory) }
      // A first backup that was cut short has no manifest yet.
      let ours: [StoreFileName.Kind] = [.segment, .checkpoint, .partial]
      var isOurs = names.allSatisfy { ours.contains(StoreFileName.kind(of: $0)) }
      if !isOurs, !names.contains(StoreFileName.lock) {
        isOurs = try StoreListing(target).storeID == store
      }
      guard isOurs else {
        throw ToolError(
          .refused, "\(target.directory) holds something else than a backup; name a new directory")
      }
      return Manifest(store: store.description)
    }
    guard manifest.store == store.description else {
      throw ToolError(
        .refused,
        "\(target.directory) is a backup of store \(manifest.store), not of \(store); "
          + "name another directory")
    }
    if let last = manifest.points.last, last.lsn > lsn.value {
      throw ToolError(
        .refused,
        "\(target.directory) holds LSN \(last.lsn), and the store ends with \(lsn): the store is "
          + "older than its backup. Name another directory")
    }
    return manifest
  }

  /// Copies a file unless the target has it, and reads the copy back.
  private func copy(
    _ name: String, _ target: ToolContext, cut: Replay.Cut?, _ manifest: inout Manifest,
    _ report: inout Report
  ) throws(ToolError) {
    // The end of a segment that goes on is copied each time.
    let isKept = cut == nil && manifest.files[name] != nil
    if isKept, try isSame(name, target) {
      report.keptFiles += 1
      return
    }
    guard let written = try FileCopy(target).copy(name, to: name, from: context, cut: cut) else {
      throw Replay.vanished
    }
    let found = try fingerprint(name, target)
    let isWhole = cut.map { !$0.isSealed } ?? false
      || (found.size == written.size && found.checksum == written.checksum)
    guard isWhole else {
      throw ToolError(.damaged, "\(target.path(name)) does not read back as it was written")
    }
    if name.hasSuffix(StoreFileName.segmentSuffix) { try check(name, target) }
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
  private func check(_ name: String, _ target: ToolContext) throws(ToolError) {
    var scan = try StoreScan(target, task: "checking")
    let summary = try scan.run(Silent(), only: [name]).first
    guard let summary, summary.damages.isEmpty, summary.unreadable == nil else {
      let damage = summary?.damages.first
      throw ToolError(
        .damaged,
        "NOT verified: \(name), offset \(damage?.offset ?? 0): \(damage?.reason ?? "unreadable"). "
          + "The store itself is damaged there; verify says what to do")
    }
  }

  /// Whether the target's copy has the same size, first and last sector: header and seal. The seal's
  /// checksum chains everything before it.
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
