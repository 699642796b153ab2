// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem

/// `penstock inspect`: segments, frames and records as they stand in the files, by the documented
/// format alone. Damage is shown in its place, and the look goes on behind it.
public struct Inspect {
  public var context: ToolContext
  /// Only this segment, with its frames.
  public var segment: String?
  public var showsRecords = false
  public var showsJSON = false

  public init(_ context: ToolContext) { self.context = context }

  /// Hands out the result line by line.
  ///
  /// - Returns: how many damaged places were shown.
  /// - Throws: `ToolError` when it could not look.
  public func run(_ out: (String) -> Void) throws(ToolError) -> Int {
    var scan = try StoreScan(context, task: "inspecting")
    if let segment, !scan.listing.segments.contains(where: { $0.name == segment }) {
      throw ToolError(
        .unreadable, "there is no segment \(segment) in \(context.directory); inspect lists them")
    }
    var damages = 0
    if segment == nil { damages += try derived(scan.listing, out) }
    for place in scan.listing.segments where segment == nil || segment == place.name {
      guard let summary = try scan.run(Silent(), only: [place.name]).first else { continue }
      damages += summary.damages.count
      out(showsJSON ? json(summary).line : text(summary))
      // A second look, because the segment's own line comes first and there may be very many.
      let isLong = segment != nil || showsRecords
      guard isLong || !summary.damages.isEmpty else { continue }
      try withoutActuallyEscaping(out) { (out) throws(ToolError) in
        let printer = Printer(frames: isLong, records: showsRecords, json: showsJSON, out)
        _ = try scan.run(printer, only: [place.name])
      }
    }
    return damages
  }

  private func derived(
    _ listing: StoreListing, _ out: (String) -> Void
  ) throws(ToolError) -> Int {
    var damages = 0
    for name in listing.checkpoints {
      guard let (found, state) = try FoundCheckpoint.read(name, context, store: nil) else {
        continue
      }
      damages += found.fault == nil ? 0 : 1
      guard showsJSON else {
        let text =
          found.header.map {
            "LSN \($0.lsn)  goes on with segment \($0.ordinal), LSN \($0.firstLSN)  "
              + "\(state?.queueCount ?? 0) queues  \(state?.liveCount ?? 0) messages"
          } ?? "DAMAGED: \(found.fault ?? "")"
        out("\(name)  \(found.bytes) bytes  \(text)")
        continue
      }
      out(
        JSON.object([
          ("type", .string("checkpoint")), ("name", .string(name)),
          ("bytes", .unsigned(found.bytes)), ("lsn", .lsn(found.header?.lsn.value)),
          ("ordinal", found.header.map { .unsigned(UInt64($0.ordinal)) } ?? .null),
          ("firstLSN", .lsn(found.header?.firstLSN.value)),
          ("queues", state.map { .int($0.queueCount) } ?? .null),
          ("messages", state.map { .int($0.liveCount) } ?? .null),
          ("fault", .optional(found.fault)),
        ]).line)
    }
    for name in listing.indexes {
      guard let found = try FoundIndex.read(name, context, store: nil) else { continue }
      damages += found.fault == nil ? 0 : 1
      guard showsJSON else {
        let text =
          found.fault.map { "DAMAGED: \($0)" }
          ?? "of segment \(found.ordinal)  \(found.messages) waiting messages"
        out("\(name)  \(found.bytes) bytes  \(text)")
        continue
      }
      out(
        JSON.object([
          ("type", .string("index")), ("name", .string(name)), ("bytes", .int(found.bytes)),
          ("ordinal", found.fault == nil ? .unsigned(UInt64(found.ordinal)) : .null),
          ("messages", found.fault == nil ? .unsigned(found.messages) : .null),
          ("fault", .optional(found.fault)),
        ]).line)
    }
    return damages
  }

  private func json(_ segment: SegmentSummary) -> JSON {
    var members: [(String, JSON)] = [
      ("type", .string("segment")), ("name", .string(segment.name)),
      ("ordinal", segment.header.map { .unsigned(UInt64($0.ordinal)) } ?? .null),
      ("version", segment.header.map { .unsigned(UInt64($0.version)) } ?? .null),
      ("store", .optional(segment.header?.store.description)),
      ("firstLSN", .unsigned(segment.firstLSN.value)),
      ("lastLSN", .lsn(segment.lastLSN?.value)),
      ("frames", .int(segment.frames)), ("records", .unsigned(segment.records)),
      ("bytes", .int(segment.size)),
      ("capacity", segment.header.map { .unsigned(UInt64($0.capacity)) } ?? .null),
      ("salt", .optional(segment.salt.map { Hex.text($0) })),
      ("previous", .optional(segment.header.map { Hex.text(UInt64($0.previous), digits: 8) })),
      ("sealed", .bool(segment.seal != nil)),
    ]
    if let seal = segment.seal {
      members += [
        ("chain", .string(Hex.text(UInt64(seal.checksum), digits: 8))),
        ("lastLSNGivenOut", .unsigned(seal.givenOut.value)),
      ]
    }
    members.append(("damages", .int(segment.damages.count)))
    return .object(members)
  }

  private func text(_ segment: SegmentSummary) -> String {
    let ordinal = segment.header.map { "\($0.ordinal)" } ?? "?"
    let lsns = segment.lastLSN.map { "LSN \(segment.firstLSN) to \($0)" } ?? "no record"
    let salt = segment.salt.map { Hex.text($0) } ?? "unknown"
    let chain =
      segment.header.map { header in
        let end = segment.seal.map { Hex.text(UInt64($0.checksum), digits: 8) } ?? "open"
        return "chain \(Hex.text(UInt64(header.previous), digits: 8)) to \(end)"
      } ?? "header damaged"
    return "\(segment.name)  ordinal \(ordinal)  \(lsns)  \(segment.frames) frames  "
      + "\(segment.records) records  \(segment.size) bytes  "
      + "\(segment.seal == nil ? "not sealed" : "sealed")  salt \(salt)  \(chain)"
      + (segment.damages.isEmpty ? "" : "  DAMAGED in \(segment.damages.count) places")
  }
}

/// Hands out the lines of one segment.
private final class Printer: SegmentVisitor {
  private let frames: Bool
  private let records: Bool
  private let json: Bool
  private let out: (String) -> Void

  init(frames: Bool, records: Bool, json: Bool, _ out: @escaping (String) -> Void) {
    self.out = out
    self.frames = frames
    self.records = records
    self.json = json
  }

  func frame(_ header: FrameHeader, in segment: SegmentSummary) {
    guard frames else { return }
    let kind = "\(header.kind)"
    if json {
      out(
        JSON.object([
          ("type", .string("frame")), ("segment", .string(segment.name)),
          ("offset", .unsigned(UInt64(header.offset))), ("kind", .string(kind)),
          ("firstLSN", .unsigned(header.firstLSN.value)),
          ("count", .unsigned(UInt64(header.count))),
          ("bytes", .unsigned(UInt64(header.extent))),
          ("bodyBytes", .unsigned(UInt64(header.bodyLength))),
          ("durableLSN", .unsigned(header.durableLSN.value)),
          ("previous", .string(Hex.text(UInt64(header.previous), digits: 8))),
          ("checksum", .string(Hex.text(UInt64(header.headerChecksum), digits: 8))),
        ]).line)
    } else {
      out(
        "  frame at \(header.offset)  \(kind)  LSN \(header.firstLSN)  \(header.count) records  "
          + "\(header.extent) bytes  durable LSN \(header.durableLSN)  chain "
          + "\(Hex.text(UInt64(header.previous), digits: 8)) to "
          + "\(Hex.text(UInt64(header.headerChecksum), digits: 8))")
    }
  }

  func record(_ place: RecordPlace, _ payload: RawSpan) {
    guard records else { return }
    let members: [(String, JSON)] =
      [("lsn", .lsn(place.lsn?.value))] + RecordText.members(payload)
      + [("offset", .int(place.offset)), ("bytes", .int(payload.byteCount))]
    if json {
      out(
        JSON.object([("type", .string("record")), ("segment", .string(place.segment))] + members)
          .line)
    } else {
      out("    " + RecordText.line(members))
    }
  }

  func damage(_ damage: Damage, in segment: SegmentSummary) {
    guard json else {
      out(
        "  DAMAGE at \(damage.offset) to \(damage.end): \(damage.reason) (\(damage.lsnText))")
      return
    }
    if case .object(let members) = damage.json {
      out(JSON.object([("type", .string("damage"))] + members).line)
    }
  }
}
