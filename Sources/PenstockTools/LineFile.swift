// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

/// A new file of lines, for what `salvage` exports.
///
/// - Durability: all of it is durable when `finish` returns; nothing before.
public final class LineFile {
  private let file: any File
  private let path: String
  private var pending: [UInt8] = []
  private var offset: UInt64 = 0

  /// - Throws: `refused` when the file is there already, or lies in the store's directory.
  public init(_ path: String, _ context: ToolContext) throws(ToolError) {
    let slash = path.utf8.lastIndex(of: UInt8(ascii: "/"))
    let parent = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    let isInStore = try unlessMissing { () throws(SystemError) in
      try context.fileSystem.status(parent + "/" + "STORE") != nil
    }
    guard isInStore != true, parent != context.directory else {
      throw ToolError(
        .refused, "\(path) would lie in a store's directory; export to another place")
    }
    self.path = path
    do throws(SystemError) { file = try context.fileSystem.open(path, .create) } catch {
      throw ToolError(
        .refused,
        error.isAlreadyThere
          ? "\(path) is there already; name a new file" : error.description)
    }
  }

  public func write(_ line: String) throws(ToolError) {
    pending += Array(line.utf8)
    pending.append(UInt8(ascii: "\n"))
    if pending.count >= 1 << 20 { try flush() }
  }

  private func flush() throws(ToolError) {
    let (file, offset, bytes) = (file, offset, pending)
    try system { () throws(SystemError) in
      try bytes.withRaw { (raw) throws(SystemError) in try file.write(raw, at: offset) }
    }
    self.offset += UInt64(bytes.count)
    pending.removeAll(keepingCapacity: true)
  }

  public func finish() throws(ToolError) {
    try flush()
    let file = file
    try system { () throws(SystemError) in
      try file.sync()
      try file.close()
    }
  }
}
