// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem

/// Something that `verify` has to tell about a place.
public struct Finding: Sendable, Hashable {
  public enum Severity: String, Sendable {
    /// The store cannot be trusted as it is.
    case damage
    /// What a crash, a start or a store in use leaves; nothing that was acknowledged is concerned.
    case note
  }
  public var severity: Severity
  public var file: String
  /// In bytes; nil where the whole file is meant.
  public var offset: Int?
  /// The first LSN concerned, where one is known.
  public var lsn: UInt64?
  /// What is there.
  public var problem: String
  /// What it means.
  public var meaning: String
  /// What to do about it.
  public var advice: String
  /// Whether `repair` takes care of it.
  public var isRepairable = false
  /// Whether a start refuses the store for it.
  public var stopsOpening = false

  public var text: String {
    let place = [offset.map { "offset \($0)" }, lsn.map { "LSN \($0)" }].compactMap(\.self)
    let where_ = ([file] + place).joined(separator: ", ")
    let head = "\(severity == .damage ? "DAMAGE" : "note  ")  \(where_): \(problem)"
    return head + "\n        means: \(meaning)"
      + (advice.isEmpty ? "" : "\n        do:    \(advice)")
  }

  public var json: JSON {
    .object([
      ("severity", .string(severity.rawValue)), ("file", .string(file)),
      ("offset", offset.map { .int($0) } ?? .null), ("lsn", .lsn(lsn)),
      ("problem", .string(problem)), ("meaning", .string(meaning)), ("advice", .string(advice)),
      ("repairable", .bool(isRepairable)), ("stopsOpening", .bool(stopsOpening)),
    ])
  }
}

/// `penstock verify`: every checksum, chain, seal, name and count of a store, without changing
/// anything.
public struct Verify {
  public var context: ToolContext

  public init(_ context: ToolContext) { self.context = context }

  public struct Report: Sendable {
    public var findings: [Finding] = []
    public var segments = 0
    public var records: UInt64 = 0
    public var bytes: UInt64 = 0
    /// Of the last record that was read.
    public var lastLSN: UInt64 = 0

    public var isSound: Bool { !findings.contains { $0.severity == .damage } }

    /// Whether a start would take the store as it is.
    public var opens: Bool { !findings.contains { $0.stopsOpening } }

    public var json: JSON {
      .object([
        ("sound", .bool(isSound)), ("opens", .bool(opens)), ("segments", .int(segments)),
        ("records", .unsigned(records)), ("bytes", .unsigned(bytes)),
        ("lastLSN", .unsigned(lastLSN)),
        ("findings", .array(findings.map(\.json))),
      ])
    }

    public var text: String {
      let looked =
        "\(records) records in \(segments) segments (\(bytes) bytes), last LSN \(lastLSN)"
      let damages = findings.filter { $0.severity == .damage }.count
      let verdict = isSound ? "sound: " + looked : "DAMAGED in \(damages) places: " + looked
      return (findings.map(\.text) + [verdict]).joined(separator: "\n")
    }
  }

  /// - Throws: `ToolError` of the kind `unreadable` when it could not look.
  /// - Complexity: reads every segment once, and what a start replays a second time.
  public func run() throws(ToolError) -> Report {
    try Attempts.run { () throws(ToolError) in try attempt() }
  }

  private func attempt() throws(ToolError) -> Report {
    let before = try StoreListing(context).lasting
    let report = try look()
    // What was read at different times need not fit together.
    if !report.isSound, try !before.isSubset(of: StoreListing(context).lasting) {
      throw Replay.vanished
    }
    return report
  }

  private func look() throws(ToolError) -> Report {
    var scan = try StoreScan(context, task: "verifying")
    let checker = RecordChecker()
    let summaries = try scan.run(checker)
    var judge = try Judge(context, listing: scan.listing, summaries: summaries)
    judge.findings = checker.findings
    judge.run()
    var report = Report()
    report.findings = judge.findings
    if report.opens { try replay(&report, summaries) }
    report.segments = summaries.count
    report.records = summaries.reduce(0) { $0 + $1.records }
    report.bytes = summaries.reduce(0) { $0 + UInt64($1.size) }
    report.lastLSN = summaries.last { $0.lastLSN != nil }?.lastLSN?.value ?? 0
    return report
  }

  /// Whether the records make sense one after the other, and every live message has its segment.
  private func replay(
    _ report: inout Report, _ summaries: [SegmentSummary]
  ) throws(ToolError) {
    do throws(ToolError) {
      let result = try Attempts.run { () throws(ToolError) in
        try Replay.run(context, to: .newest, task: "replaying")
      }
      // Those begun since the files were read are not missing.
      let there = Set(summaries.compactMap { $0.header?.ordinal })
      let newest = there.max() ?? 0
      for (ordinal, here) in result.state.residents.sorted(by: { $0.key < $1.key })
      where ordinal <= newest && !there.contains(ordinal) {
        report.findings.append(
          Finding(
            severity: .damage, file: "segment number \(ordinal)", offset: nil, lsn: nil,
            problem: "it is missing, and \(here.count) messages are in it",
            meaning: "acknowledged messages are lost, and the store will not open",
            advice: Self.restore, stopsOpening: true))
      }
    } catch {
      guard error.kind == .damaged else { throw error }
      report.findings.append(
        Finding(
          severity: .damage, file: context.directory, offset: nil, lsn: nil,
          problem: error.description, meaning: "the records do not make a state together",
          advice: Self.restore, stopsOpening: true))
    }
  }

  static let restore =
    "keep the directory as it is and copy it; then restore a backup, or salvage what is there"
  static let repair =
    "run repair: it says what it would give up, and gives up nothing without --apply"
}

/// Looks whether each record is one of the format.
private final class RecordChecker: SegmentVisitor {
  var findings: [Finding] = []

  func record(_ place: RecordPlace, _ payload: RawSpan) {
    do throws(RecordError) {
      let entry = try Entry(payload)
      if case .sent = entry.record { _ = try StoredMessage(payload) }
    } catch {
      guard findings.count < 1000 else { return }
      findings.append(
        Finding(
          severity: .damage, file: place.segment, offset: place.offset, lsn: place.lsn?.value,
          problem: error.description, meaning: "another program or a newer penstock wrote it",
          advice: "open the store with the build that wrote it", stopsOpening: true))
    }
  }
}

/// Weighs what was found in the files against the rules of the format.
struct Judge {
  let listing: StoreListing
  let summaries: [SegmentSummary]
  /// Oldest first.
  private(set) var checkpoints: [FoundCheckpoint] = []
  private(set) var indexFaults: [(name: String, fault: String)] = []
  var findings: [Finding] = []

  /// Of the newest checkpoint that can be used, where an opening begins to replay.
  var base: CheckpointHeader? { checkpoints.last { $0.header != nil }?.header }
  /// Of the older one: from there on the log is complete.
  private var older: CheckpointHeader? {
    checkpoints.filter { $0.header != nil }.suffix(2).first?.header
  }

  init(
    _ context: ToolContext, listing: StoreListing, summaries: [SegmentSummary]
  ) throws(ToolError) {
    self.listing = listing
    self.summaries = summaries
    for name in listing.checkpoints {
      let found = try FoundCheckpoint.read(name, context, store: listing.storeID)?.found
      if let found { checkpoints.append(found) }
    }
    for name in listing.indexes {
      let found = try FoundIndex.read(name, context, store: listing.storeID)
      if let fault = found?.fault { indexFaults.append((name, fault)) }
    }
  }

  private mutating func damage(
    _ file: String, _ offset: Int?, _ lsn: LSN?, _ problem: String, _ meaning: String,
    _ advice: String = Verify.restore, stopsOpening: Bool = true
  ) {
    findings.append(
      Finding(
        severity: .damage, file: file, offset: offset, lsn: lsn?.value, problem: problem,
        meaning: meaning, advice: advice, isRepairable: advice == Verify.repair,
        stopsOpening: stopsOpening))
  }

  private mutating func note(
    _ file: String, _ offset: Int?, _ lsn: LSN?, _ problem: String, _ meaning: String,
    _ advice: String = ""
  ) {
    findings.append(
      Finding(
        severity: .note, file: file, offset: offset, lsn: lsn?.value, problem: problem,
        meaning: meaning, advice: advice))
  }

  mutating func run() {
    judgeStore()
    for (index, summary) in summaries.enumerated() {
      judgeHeader(summary, after: index > 0 ? summaries[index - 1] : nil)
      if let (offset, reason) = summary.unreadable {
        damage(
          summary.name, offset, nil, reason, "the disk does not give the bytes back",
          "copy the directory to another disk as far as it can be read, and replace this one",
          // Of a segment before the checkpoint a start reads the header alone.
          stopsOpening: !isContainer(summary) || offset < LogFormat.segmentHeaderSize)
      }
      if index < summaries.count - 1 {
        judgeSealed(summary)
      } else {
        judgeNewest(summary)
      }
    }
    judgeHead()
    judgeCheckpoints()
    for name in listing.unknown {
      note(name, nil, nil, "no file of a store has this name", "somebody put it there")
    }
    for name in listing.evidence {
      note(name, nil, nil, "bytes that were set aside", "an earlier start or repair kept them")
    }
  }

  private mutating func judgeStore() {
    switch listing.store {
    case .missing:
      damage(
        StoreFileName.store, nil, nil, "the file is missing",
        "the store's identity and the key of its receipt handles are lost; it will not open",
        "copy STORE from a backup of this store")
    case .damaged(let reason):
      damage(
        StoreFileName.store, 0, nil, reason,
        "the store's identity and the key of its receipt handles are lost; it will not open",
        "copy STORE from a backup of this store")
    case .whole:
      if summaries.isEmpty {
        damage(
          StoreFileName.store, nil, nil, "the store exists, but all its segments are missing",
          "everything is lost, or the directory is not complete")
      }
    }
  }

  private mutating func judgeCheckpoints() {
    for checkpoint in checkpoints {
      guard let fault = checkpoint.fault else { continue }
      damage(
        checkpoint.name, 0, nil, fault,
        base == nil
          ? "a start needs the whole log" : "a start goes on from the checkpoint before it",
        Verify.repair, stopsOpening: false)
    }
    for (name, fault) in indexFaults {
      damage(
        name, 0, nil, fault, "it is of no use; all of it follows from its segment", Verify.repair,
        stopsOpening: false)
    }
    guard let base else { return }
    guard let first = summaries.first(where: { $0.firstLSN == base.firstLSN }) else {
      return damage(
        StoreFileName.segment(base.firstLSN), nil, base.firstLSN,
        "the segment that checkpoint \(base.lsn) goes on with is missing",
        "what was acknowledged in it is lost, and the store will not open")
    }
    guard let header = first.header else { return }
    if header.ordinal != base.ordinal || header.previous != base.previous {
      damage(
        first.name, 48, base.firstLSN, "it does not continue checkpoint \(base.lsn)",
        "one of the two is of another life of the store, or was changed")
    }
  }

  /// Whether a segment is only a container of message bodies: no start reads its records.
  private func isContainer(_ segment: SegmentSummary) -> Bool {
    base.map { segment.firstLSN < $0.firstLSN } ?? false
  }

  private mutating func judgeHeader(_ segment: SegmentSummary, after previous: SegmentSummary?) {
    let name = segment.name
    guard let header = segment.header else {
      damage(
        name, 0, segment.firstLSN, segment.headerFault ?? "the segment header is damaged",
        "the segment cannot be told from a foreign one, so the store will not open")
      return
    }
    if let store = listing.storeID, header.store != store {
      damage(
        name, 16, segment.firstLSN, "it belongs to store \(header.store), not to \(store)",
        "a file of another store was put here, or STORE was",
        "put each file back where it belongs")
    }
    if header.firstLSN != segment.firstLSN {
      damage(
        name, 40, segment.firstLSN, "its header says that it begins with LSN \(header.firstLSN)",
        "the file was renamed", "give it its name back")
    }
    guard let previous else {
      if base != nil { return }
      if header.ordinal != 0 || header.firstLSN != LSN(1) || header.previous != 0 {
        damage(
          name, 0, LSN(1), "the log begins with segment \(header.ordinal), LSN \(header.firstLSN)",
          "the segments before it are missing")
      }
      return
    }
    guard let before = previous.header else { return }
    let isGapAllowed = older.map { header.firstLSN <= $0.firstLSN } ?? false
    if isGapAllowed, header.ordinal > before.ordinal &+ 1 { return }
    if header.ordinal != before.ordinal &+ 1 {
      damage(
        name, 48, previous.seal?.givenOut.advanced(by: 1),
        "segment \(header.ordinal) follows segment \(before.ordinal)",
        "segments between them are missing", stopsOpening: !isContainer(segment))
    } else if let seal = previous.seal {
      if header.previous != seal.checksum {
        damage(
          name, 52, header.firstLSN, "it does not continue \(previous.name)",
          "one of the two is of another life of the store, or was changed",
          stopsOpening: !isContainer(segment))
      } else if header.firstLSN != seal.givenOut.advanced(by: 1) {
        damage(
          name, 40, header.firstLSN,
          "it begins with LSN \(header.firstLSN), and \(previous.name) ends with \(seal.givenOut)",
          "one of the two was changed", stopsOpening: !isContainer(segment))
      }
    }
  }

  private mutating func judgeSealed(_ segment: SegmentSummary) {
    for part in segment.damages where part.end > LogFormat.segmentHeaderSize || part.offset > 0 {
      damage(
        part.file, part.offset, part.firstLSN,
        "\(part.reason), up to offset \(part.end): \(part.lsnText)",
        isContainer(segment)
          ? "messages whose bytes are here are set aside when they are received"
          : "acknowledged data is damaged, and the store will not open",
        stopsOpening: !isContainer(segment))
    }
    guard segment.damages.isEmpty else { return }
    if segment.seal == nil {
      damage(
        segment.name, segment.sound.offset, segment.sound.nextLSN,
        "the segment ends without its seal", "what it held from here on is missing",
        stopsOpening: !isContainer(segment))
    } else if segment.size > segment.sound.offset {
      damage(
        segment.name, segment.sound.offset, segment.sound.nextLSN,
        "the file goes on behind its seal", "somebody made it longer",
        "cut it to \(segment.sound.offset) bytes when they are zeros",
        stopsOpening: !isContainer(segment))
    }
  }

  private mutating func judgeNewest(_ segment: SegmentSummary) {
    let end = NewestEnd(segment, checkpoint: base?.lsn)
    let place = (segment.name, end.offset, end.nextLSN)
    switch end.kind {
    case .sealed:
      if segment.size > segment.sound.offset {
        note(
          place.0, place.1, place.2, "zeros behind the seal", "the last run ended while it closed")
      }
    case .clean:
      note(
        place.0, place.1, place.2, "the segment has no seal, and nothing follows",
        "the store is in use, or its last run did not close it; the next start goes on here")
    case .torn(let bytes):
      note(
        place.0, place.1, place.2,
        "\(bytes) bytes behind the last whole frame, and nothing shows that they were durable",
        "a write under way, or one that a crash cut; the next start keeps them aside and drops them"
      )
    case .acknowledged(let through):
      damage(
        place.0, place.1, place.2,
        "\(segment.damages.first?.reason ?? "the log ends"), and LSN \(through) behind it was "
          + "durable",
        "acknowledged data is damaged, and the store will not open", Verify.repair)
    case .resized:
      damage(
        place.0, place.1, place.2,
        "no seal, and \(segment.size) bytes; \(segment.header?.capacity ?? 0) were made",
        "the file was cut or made longer, and the store will not open", Verify.repair)
    case .behindSeal:
      damage(
        place.0, place.1, place.2, "bytes other than zero behind the seal",
        "something wrote to the file, and the store will not open", Verify.repair)
    case .hopeless: break
    }
    for part in segment.damages.dropFirst() where end.isDamage {
      damage(
        part.file, part.offset, part.firstLSN, "\(part.reason): \(part.lsnText)",
        "more damage in the same segment", Verify.repair)
    }
  }

  private mutating func judgeHead() {
    let name = StoreFileName.head
    switch listing.head {
    case .missing:
      if listing.store.content?.version == 1 { return }
      damage(
        name, nil, nil, "the file is missing", "whether the newest segments are there is not known",
        Verify.repair)
    case .damaged(let reason):
      damage(
        name, 0, nil, reason, "whether the newest segments are there is not known", Verify.repair)
    case .whole(let slots):
      let ours = slots.compactMap(\.self).filter { $0.store == listing.storeID ?? $0.store }
      guard let begun = ours.map(\.ordinal).max() else {
        return damage(
          name, 16, nil, "it is another store's", "the file was replaced", Verify.repair)
      }
      if slots.contains(where: { $0 == nil }), begun > 0 {
        note(name, nil, nil, "one of its two slots is not valid", "the other one counts")
      }
      guard let newest = summaries.last, let header = newest.header else { return }
      if begun > header.ordinal {
        let next = newest.seal?.givenOut.advanced(by: 1) ?? newest.sound.nextLSN
        damage(
          name, 0, next,
          "\(UInt64(begun) + 1) segments were begun, and the newest here is number "
            + "\(UInt64(header.ordinal) + 1)",
          "the newest segments are missing, with what was acknowledged in them",
          "bring the missing files back, or restore a backup")
      } else if begun < header.ordinal {
        note(
          name, 0, nil, "it counts \(UInt64(begun) + 1) segments, and there are more",
          "a new segment is being begun, or a crash came in between")
      }
    }
  }
}

/// How the newest segment ends: the rows of the recovery table in `Docs/format.md`.
struct NewestEnd {
  enum Kind: Hashable {
    case sealed
    case clean
    /// Bytes that nothing shows to have been durable.
    case torn(Int)
    /// Damage, and something behind it that was durable up to this LSN.
    case acknowledged(LSN)
    /// No seal, and not the size that was made.
    case resized
    case behindSeal
    /// No header: nothing in the segment can be trusted.
    case hopeless
  }
  var kind: Kind
  /// Where the last good frame ends.
  var offset: Int
  /// The first LSN that is not there.
  var nextLSN: LSN

  /// - Parameter checkpoint: LSN of the checkpoint that a start goes on from: it was durable.
  init(_ segment: SegmentSummary, checkpoint: LSN?) {
    offset = segment.sound.offset
    nextLSN = segment.sound.nextLSN
    guard let header = segment.header else {
      kind = .hopeless
      return
    }
    let first = segment.damages.first
    if segment.seal != nil {
      let through = max(segment.durableLSN, nextLSN)
      kind = first == nil ? .sealed : segment.sound.isSealed ? .behindSeal : .acknowledged(through)
      if first == nil, let checkpoint, checkpoint >= nextLSN {
        kind = .acknowledged(checkpoint)
      }
    } else if let first, segment.isAcknowledgedDamaged {
      kind = .acknowledged(max(segment.durableLSN, first.firstLSN ?? nextLSN))
    } else if let checkpoint, checkpoint >= nextLSN {
      kind = .acknowledged(checkpoint)
    } else if header.version != 1, segment.size != Int(header.capacity) {
      kind = .resized
    } else if let first {
      kind = .torn(segment.damages.last.map { $0.end - first.offset } ?? 0)
    } else {
      kind = .clean
    }
  }

  /// Whether an opening refuses it.
  var isDamage: Bool {
    switch kind {
    case .sealed, .clean, .torn: false
    case .acknowledged, .resized, .behindSeal, .hopeless: true
    }
  }
}
