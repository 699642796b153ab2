// SPDX-License-Identifier: Apache-2.0
internal import PenstockLog
internal import PenstockSystem

/// The names in a store's directory at one moment, and the two small files that describe it.
///
/// `HEAD` is read before the names are, so that in a store that is in use it never counts a segment
/// that the listing does not have yet.
struct StoreListing {
  struct Segment: Hashable {
    var name: String
    var firstLSN: LSN
  }

  /// What a small file of a fixed layout turned out to be.
  enum Small<Content> {
    case missing
    case damaged(String)
    case whole(Content)

    var content: Content? {
      if case .whole(let content) = self { return content }
      return nil
    }
  }

  var store = Small<StoreFile>.missing
  /// Both slots; nil for one that is not valid.
  var head = Small<[HeadSlot?]>.missing
  /// By first LSN.
  var segments: [Segment] = []
  /// By LSN.
  var checkpoints: [String] = []
  var indexes: [String] = []
  /// Evidence that openings and repairs set aside.
  var evidence: [String] = []
  /// What a crash left half made, and segments of zeros.
  var unused: [String] = []
  var unknown: [String] = []

  /// - Throws: `unreadable` when there is no such directory, or nothing of a store in it.
  init(_ context: ToolContext) throws(ToolError) {
    let names: [String]
    head = try Self.readHead(context)
    store = try Self.readStore(context)
    names = try system { () throws(SystemError) in
      try context.fileSystem.list(context.directory)
    }
    for name in names {
      if let first = StoreFileName.firstLSN(of: name) {
        segments.append(Segment(name: name, firstLSN: first))
        continue
      }
      switch StoreFileName.kind(of: name) {
      case .segment: break
      case .checkpoint: checkpoints.append(name)
      case .index: indexes.append(name)
      case .prepared, .partial: unused.append(name)
      case .other:
        let parts = [
          StoreFileName.evidenceMark, StoreFileName.setAsideMark, StoreFileName.damagedMark,
          StoreFileName.checkpointSuffix + StoreFileName.damagedSuffix,
        ]
        if parts.contains(where: { name.contains($0) }) { evidence.append(name) }
      // A backup is a store with a manifest.
      case .unknown where Manifest.names.contains(name): break
      case .unknown: unknown.append(name)
      }
    }
    segments.sort { $0.firstLSN < $1.firstLSN }
    if segments.isEmpty, case .missing = store, case .missing = head {
      throw ToolError(
        .unreadable,
        "\(context.directory) is not a store: it holds no STORE, no HEAD and no segment; "
          + "name the directory that was given to serve as --data-dir")
    }
  }

  private static func read(
    _ context: ToolContext, _ name: String, limit: Int
  ) throws(ToolError) -> (bytes: [UInt8], size: UInt64)? {
    try unlessMissing { () throws(SystemError) in
      let file = try context.fileSystem.open(context.path(name), .readOnly)
      let size = try file.size()
      var bytes = [UInt8](repeating: 0, count: limit)
      let count = try bytes.withMutableRaw { (raw) throws(SystemError) in
        try file.read(into: &raw, at: 0)
      }
      bytes.removeLast(bytes.count - count)
      try file.close()
      return (bytes, size)
    }
  }

  private static func readStore(_ context: ToolContext) throws(ToolError) -> Small<StoreFile> {
    let name = StoreFileName.store
    guard let (bytes, size) = try read(context, name, limit: 4096) else { return .missing }
    guard size == UInt64(StoreFile.size) else {
      return .damaged("it has \(size) bytes, not \(StoreFile.size)")
    }
    do throws(SegmentHeader.Failure) {
      return .whole(
        try bytes.withRaw { (raw) throws(SegmentHeader.Failure) in try StoreFile(raw) })
    } catch {
      switch error {
      case .damaged: return .damaged("it fails its checksum")
      case .version(let version):
        throw unknownVersion(name, version)
      }
    }
  }

  private static func readHead(_ context: ToolContext) throws(ToolError) -> Small<[HeadSlot?]> {
    let size = HeadSlot.fileSize
    guard let (bytes, _) = try read(context, StoreFileName.head, limit: size) else {
      return .missing
    }
    let slots = bytes.withRaw { raw in (0..<2).map { HeadSlot(raw, at: HeadSlot.offset($0)) } }
    guard slots.contains(where: { $0 != nil }) else {
      return .damaged("neither of its two slots is valid")
    }
    return .whole(slots)
  }

  static func unknownVersion(_ name: String, _ version: UInt32) -> ToolError {
    ToolError(
      .unreadable,
      "\(name) has format version \(version), and this build reads 1 to \(LogFormat.version): "
        + "use a newer penstock")
  }

  /// Names of files that only compaction removes.
  var lasting: Set<String> { Set(segments.map(\.name) + checkpoints) }

  /// The identity that most of the directory agrees on: that of `STORE`, else nil.
  var storeID: StoreID? { store.content?.store }
}
