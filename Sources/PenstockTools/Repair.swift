// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem

/// `penstock repair`: makes a store open again that an opening refuses, where that can be done
/// without guessing, and says what is given up for it.
///
/// Nothing is deleted: each file that is changed is copied aside first, under a name that no
/// opening reads. Repaired are the end of the newest segment, `HEAD`, checkpoints and indexes.
/// Damage elsewhere is what backups and `salvage` are for.
///
/// Takes the store's lock, also for the dry run, so that nothing changes under it.
public struct Repair {
  public var context: ToolContext

  public init(_ context: ToolContext) { self.context = context }

  public struct Action: Sendable {
    public var file: String
    /// What is or would be done.
    public var step: String
    /// The copy that is or would be kept.
    public var evidence: String
    /// Acknowledged LSNs that are given up; nil when none is.
    public var givenUp: ClosedRange<UInt64>?
    /// How many of the records given up can still be read, and what is among them: messages, which
    /// are lost, and deletes, which are undone.
    public var readable = 0
    public var messages = 0
    public var deletes = 0

    var json: JSON {
      .object([
        ("file", .string(file)), ("step", .string(step)), ("evidence", .string(evidence)),
        ("givenUpFirstLSN", .lsn(givenUp?.lowerBound)),
        ("givenUpLastLSN", .lsn(givenUp?.upperBound)), ("givenUpReadable", .int(readable)),
        ("givenUpMessages", .int(messages)), ("givenUpDeletes", .int(deletes)),
      ])
    }

    func text(applied: Bool) -> String {
      var lines = ["\(applied ? "did  " : "would")  \(step)"]
      lines.append("       a copy \(applied ? "is kept" : "is kept first") in \(evidence)")
      if let givenUp {
        lines.append(
          "       GIVES UP LSN \(givenUp.lowerBound) to \(givenUp.upperBound), which were "
            + "acknowledged. \(readable) records of them can still be read: \(messages) messages, "
            + "which are lost, and \(deletes) deletes, whose messages come back"
            + (applied ? "" : ". Run salvage --export first"))
      }
      return lines.joined(separator: "\n")
    }
  }

  public struct Report: Sendable {
    public var actions: [Action] = []
    /// Damage that this tool cannot repair and that keeps the store from opening: while there is
    /// any, it changes nothing.
    public var refused: [Finding] = []
    /// Damage that is left as it is, with which the store opens.
    public var left: [Finding] = []
    public var isApplied = false

    public var json: JSON {
      .object([
        ("applied", .bool(isApplied)), ("actions", .array(actions.map(\.json))),
        ("notRepairable", .array(refused.map(\.json))), ("left", .array(left.map(\.json))),
      ])
    }

    public var text: String {
      var lines = (refused + left).map(\.text)
      lines += actions.map { $0.text(applied: isApplied) }
      if !refused.isEmpty {
        lines.append("nothing was changed: \(refused.count) damages cannot be repaired")
      } else if actions.isEmpty {
        lines.append("nothing to repair")
      } else if isApplied {
        lines.append(
          left.isEmpty
            ? "repaired: the files are sound, and the store can be opened"
            : "repaired as far as can be: the store can be opened, and \(left.count) damages stay")
      } else {
        lines.append("nothing was changed; --apply does it")
      }
      return lines.joined(separator: "\n")
    }
  }

  /// - Parameter applies: false for the dry run.
  /// - Durability: everything that was done is durable on return.
  /// - Throws: `refused` when the store is in use; `damaged` when the repaired files are not sound.
  public func run(applies: Bool) throws(ToolError) -> Report {
    _ = try StoreListing(context)
    let lock: any FileLock
    do throws(SystemError) {
      lock = try context.fileSystem.lock(context.path(StoreFileName.lock))
    } catch {
      throw ToolError(
        .refused,
        error.isLocked
          ? "\(context.directory) is in use; stop the server that has it open first"
          : error.description)
    }
    defer { lock.release() }
    var plan = try Plan(context)
    try plan.make()
    guard applies, plan.report.refused.isEmpty, !plan.report.actions.isEmpty else {
      return plan.report
    }
    try plan.apply()
    let after = try Verify(context).run()
    guard after.opens, !after.findings.contains(where: \.isRepairable) else {
      throw ToolError(
        .damaged,
        "after the repair the files are still not sound; the copies are kept\n"
          + after.text)
    }
    plan.report.isApplied = true
    return plan.report
  }

  /// One repair: what to do, and the doing of it.
  private struct Plan {
    let context: ToolContext
    let listing: StoreListing
    let summaries: [SegmentSummary]
    var report = Report()
    private var cut: SegmentSummary?
    private var head: SegmentHeader?

    init(_ context: ToolContext) throws(ToolError) {
      self.context = context
      var scan = try StoreScan(context, task: "looking")
      summaries = try scan.run(Silent())
      listing = scan.listing
    }

    mutating func make() throws(ToolError) {
      var judge = try Judge(context, listing: listing, summaries: summaries)
      judge.run()
      let damages = judge.findings.filter { $0.severity == .damage }
      let newest = summaries.last
      // What recovery refuses in the newest segment and in HEAD has one answer each.
      let others = damages.filter {
        !$0.isRepairable || ($0.file == newest?.name && newest?.header == nil)
      }
      report.refused = others.filter(\.stopsOpening)
      report.left = others.filter { !$0.stopsOpening }
      if let newest, damages.contains(where: { $0.file == newest.name }) {
        try planCut(newest, judge)
      }
      if damages.contains(where: { $0.file == StoreFileName.head }) { planHead() }
      for name in judge.checkpoints.filter({ $0.fault != nil }).map(\.name) {
        report.actions.append(
          Action(
            file: name, step: "take \(name) out of use; a start goes on from the one before it",
            evidence: freeName(name)))
      }
      for (name, _) in judge.indexFaults {
        report.actions.append(
          Action(
            file: name, step: "take \(name) out of use; it is made anew from its segment",
            evidence: freeName(name)))
      }
    }

    private mutating func planCut(_ newest: SegmentSummary, _ judge: Judge) throws(ToolError) {
      let end = NewestEnd(newest, checkpoint: judge.base?.lsn)
      guard end.isDamage, newest.header != nil else { return }
      guard end.nextLSN > LSN(1) else {
        report.refused.append(
          Finding(
            severity: .damage, file: newest.name, offset: end.offset, lsn: 1,
            problem: "the store's first record is gone", meaning: "nothing is left of the store",
            advice: Verify.restore))
        return
      }
      // What compaction moved behind the damage is in no other segment any more.
      let state: State
      do throws(ToolError) {
        state = try Replay.run(
          context, to: .lsn(LSN(end.nextLSN.value - 1)), task: "replaying"
        ).state
      } catch {
        guard error.kind == .damaged else { throw error }
        report.refused.append(
          Finding(
            severity: .damage, file: newest.name, offset: end.offset, lsn: end.nextLSN.value,
            problem: "no checkpoint lies before the damage from which the log is whole: \(error)",
            meaning: "a log that ends before the damage would not open",
            advice: Verify.restore, stopsOpening: true))
        return
      }
      let there = Set(summaries.compactMap { $0.header?.ordinal })
      for (ordinal, here) in state.residents.sorted(by: { $0.key < $1.key })
      where !there.contains(ordinal) {
        report.refused.append(
          Finding(
            severity: .damage, file: newest.name, offset: end.offset, lsn: end.nextLSN.value,
            problem: "\(here.count) messages of the removed segment number \(ordinal) were copied "
              + "behind the damage",
            meaning: "a log that ends before them would have lost them, and would not open",
            advice: Verify.restore, stopsOpening: true))
      }
      var action = Action(
        file: newest.name,
        step: "end \(newest.name) with a seal at offset \(end.offset), behind LSN "
          + "\(end.nextLSN.value - 1)",
        evidence: freeName(newest.name))
      if end.kind == .behindSeal {
        action.step = "cut \(newest.name) behind its seal, at offset \(end.offset)"
      } else {
        let last = max(newest.durableLSN, newest.lastLSN ?? LSN(0), judge.base?.lsn ?? LSN(0))
        if last >= end.nextLSN {
          action.givenUp = end.nextLSN.value...last.value
          let counter = Counter(end.nextLSN)
          var scan = try StoreScan(context, task: "looking")
          _ = try scan.run(counter, only: [newest.name])
          action.readable = counter.readable
          action.messages = counter.messages
          action.deletes = counter.deletes
        } else if case .resized = end.kind {
          action.step += "; what stood behind it, if anything did, is not in the file"
        }
      }
      cut = newest
      // Before the cut: a start must not go on from what is given up.
      for checkpoint in judge.checkpoints {
        guard let lsn = checkpoint.header?.lsn, lsn >= end.nextLSN else { continue }
        report.actions.append(
          Action(
            file: checkpoint.name,
            step: "take \(checkpoint.name) out of use; it holds what is given up",
            evidence: freeName(checkpoint.name)))
      }
      report.actions.append(action)
    }

    private mutating func planHead() {
      guard let header = summaries.last?.header else { return }
      head = header
      report.actions.append(
        Action(
          file: StoreFileName.head,
          step: "write HEAD anew: segment \(header.ordinal) is the newest. Whether newer ones were "
            + "lost cannot be told any more",
          evidence: freeName(StoreFileName.head)))
    }

    private func freeName(_ name: String) -> String {
      let taken = Set(listing.evidence)
      var number = 1
      while taken.contains(name + StoreFileName.setAsideMark + "\(number)") { number += 1 }
      return name + StoreFileName.setAsideMark + "\(number)"
    }

    /// Crash steps of each: (1) the copy is durable under its name; (2) the change. A crash in
    /// between leaves the damage as it was, or as little of it as is left, and a copy of all of it.
    func apply() throws(ToolError) {
      for action in report.actions {
        if ![cut?.name, StoreFileName.head].contains(action.file) {
          try system { () throws(SystemError) in
            try context.fileSystem.rename(
              context.path(action.file), to: context.path(action.evidence))
            try context.fileSystem.syncDirectory(context.directory)
          }
          continue
        }
        if try system({ () throws(SystemError) in
          try context.fileSystem.status(context.path(action.file)) != nil
        }) {
          try FileCopy(context).copy(action.file, to: action.evidence)
        }
        if action.file == StoreFileName.head { try writeHead() } else { try writeEnd() }
      }
    }

    private func writeEnd() throws(ToolError) {
      guard let cut, let salt = cut.header?.salt else { return }
      let sound = cut.sound
      try system { () throws(SystemError) in
        let file = try context.fileSystem.open(context.path(cut.name), .readWrite)
        if sound.isSealed {
          try file.truncate(to: UInt64(sound.offset))
          try file.sync()
        } else {
          // Or the seal could be on disk with what was damaged behind it.
          try Self.erase(file, from: sound.offset, to: Int(clamping: try file.size()))
          let last = LSN(sound.nextLSN.value - 1)
          _ = try SegmentedLog.writeSeal(
            file, at: sound.offset, salt: salt, lastLSN: last,
            givenOut: last.advanced(by: LogFormat.lostLSNs), records: sound.records,
            previous: sound.chain, scratch: CommitBuffer(capacity: 2 * LogFormat.sectorSize))
        }
        try file.close()
      }
    }

    private static func erase(_ file: any File, from: Int, to end: Int) throws(SystemError) {
      let zeros = CommitBuffer(capacity: FileWindow.windowSize)
      zeros.putZeros(FileWindow.windowSize)
      var offset = from
      while offset < end {
        let length = min(FileWindow.windowSize, end - offset)
        try zeros.withBytes(0..<length) { (bytes) throws(SystemError) in
          try file.write(bytes, at: UInt64(offset))
        }
        offset += length
      }
      try file.syncData()
    }

    private func writeHead() throws(ToolError) {
      if let head { try FileCopy(context).writeHead(head) }
    }
  }
}

/// Counts what a cut gives up.
private final class Counter: SegmentVisitor {
  private let first: LSN
  var (readable, messages, deletes) = (0, 0, 0)

  init(_ first: LSN) { self.first = first }

  func record(_ place: RecordPlace, _ payload: RawSpan) {
    guard let lsn = place.lsn, lsn >= first else { return }
    readable += 1
    do throws(RecordError) {
      switch try Entry(payload).record {
      case .sent: messages += 1
      case .deleted, .excised: deletes += 1
      default: break
      }
    } catch {}
  }
}

/// A visitor that only looks whether all is whole.
final class Silent: SegmentVisitor {}
