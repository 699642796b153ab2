// SPDX-License-Identifier: Apache-2.0
internal import PenstockLog
internal import PenstockSystem

/// A walk over the segments of a store, oldest first.
struct StoreScan {
  let context: ToolContext
  var listing: StoreListing
  /// Whether records are looked for in damaged frames, too.
  var salvages = false
  /// What a progress bar says.
  var task: String

  init(_ context: ToolContext, task: String) throws(ToolError) {
    self.context = context
    self.task = task
    listing = try StoreListing(context)
  }

  /// Walks over each segment, or over those of `names`.
  ///
  /// A segment that vanishes is left out if a fresh listing has lost it, too: compaction removed
  /// it.
  mutating func run(
    _ visitor: any SegmentVisitor, only names: Set<String>? = nil
  ) throws(ToolError) -> [SegmentSummary] {
    let segments = listing.segments.filter { names?.contains($0.name) ?? true }
    var total: UInt64 = 0
    for segment in segments {
      total += try size(segment.name)
    }
    var summaries: [SegmentSummary] = []
    var done: UInt64 = 0
    for segment in segments {
      context.progress(ToolProgress(task, bytes: done, of: total))
      guard let summary = try walk(segment, visitor) else {
        let fresh = try StoreListing(context)
        guard !fresh.segments.contains(segment) else {
          throw ToolError(
            .unreadable, "\(context.path(segment.name)) has a name, but cannot be found")
        }
        listing.segments.removeAll { $0 == segment }
        continue
      }
      summaries.append(summary)
      done += UInt64(summary.size)
    }
    context.progress(ToolProgress(task, bytes: total, of: total))
    return summaries
  }

  private func size(_ name: String) throws(ToolError) -> UInt64 {
    let status = try system { () throws(SystemError) in
      try context.fileSystem.status(context.path(name))
    }
    return status?.size ?? 0
  }

  /// Nil when the segment is gone.
  private func walk(
    _ segment: StoreListing.Segment, _ visitor: any SegmentVisitor
  ) throws(ToolError) -> SegmentSummary? {
    let window = try unlessMissing { () throws(SystemError) in
      try FileWindow(context.fileSystem.open(context.path(segment.name), .readOnly))
    }
    guard let window else { return nil }
    var walk = SegmentWalk(segment.name, firstLSN: segment.firstLSN, window, visitor)
    walk.salvages = salvages
    let summary = try walk.run()
    try window.close()
    return summary
  }
}
