// SPDX-License-Identifier: Apache-2.0
import Foundation
package import PenstockTesting

/// One piece of damage to a copy of a data directory.
package struct Damage: Codable, Equatable, Sendable {
  package enum Kind: String, Codable, CaseIterable, Sendable {
    case flippedBit, zeroedSector, cutFile, removedFile, swappedFiles
  }

  package var kind: Kind
  /// Path within the directory.
  package var file: String
  /// The file it changed places with.
  package var other: String?
  /// Where in the file, in bytes.
  package var offset: Int?

  /// Messages whose bytes it can have hit, at most: what is missing beyond them was lost in another
  /// way. No record of a message is shorter than 64 bytes.
  package var mostMessages: Int {
    switch kind {
    case .flippedBit: 1
    case .zeroedSector: Self.sector / 64 + 1
    case .cutFile: .max
    // Such files are refused, or made again from others.
    case .removedFile, .swappedFiles: 0
    }
  }

  package var text: String {
    let place = offset.map { " at \($0)" } ?? ""
    switch kind {
    case .flippedBit: return "flipped a bit of \(file)\(place)"
    case .zeroedSector: return "zeroed a sector of \(file)\(place)"
    case .cutFile: return "cut \(file)\(place)"
    case .removedFile: return "removed \(file)"
    case .swappedFiles: return "swapped \(file) and \(other ?? "")"
    }
  }

  private static let sector = 4096

  /// Damages a directory as the generator says. Nil if there is nothing to damage.
  package static func apply(to directory: String, _ random: StableRandom) throws -> Damage? {
    let files = try list(directory)
    let full = files.filter { $0.size > 0 }
    guard !full.isEmpty else { return nil }
    var kind = Kind.allCases[random.below(Kind.allCases.count)]
    if kind == .swappedFiles, full.count < 2 { kind = .flippedBit }
    let place = random.below(full.count)
    let chosen = full[place]
    let path = "\(directory)/\(chosen.name)"
    switch kind {
    case .flippedBit:
      var data = try Data(contentsOf: URL(fileURLWithPath: path))
      let offset = interesting(data, random)
      data[offset] ^= 1 << UInt8(random.below(8))
      try data.write(to: URL(fileURLWithPath: path))
      return Damage(kind: kind, file: chosen.name, offset: offset)
    case .zeroedSector:
      var data = try Data(contentsOf: URL(fileURLWithPath: path))
      let start = interesting(data, random) / sector * sector
      let end = min(start + sector, data.count)
      data.replaceSubrange(start..<end, with: Data(count: end - start))
      try data.write(to: URL(fileURLWithPath: path))
      return Damage(kind: kind, file: chosen.name, offset: start)
    case .cutFile:
      let data = try Data(contentsOf: URL(fileURLWithPath: path))
      let offset = interesting(data, random)
      try data.prefix(offset).write(to: URL(fileURLWithPath: path))
      return Damage(kind: kind, file: chosen.name, offset: offset)
    case .removedFile:
      try FileManager.default.removeItem(atPath: path)
      return Damage(kind: kind, file: chosen.name)
    case .swappedFiles:
      let second = full[(place + 1 + random.below(full.count - 1)) % full.count]
      let target = "\(directory)/\(second.name)"
      try FileManager.default.moveItem(atPath: path, toPath: path + ".swap")
      try FileManager.default.moveItem(atPath: target, toPath: path)
      try FileManager.default.moveItem(atPath: path + ".swap", toPath: target)
      return Damage(kind: kind, file: chosen.name, other: second.name)
    }
  }

  /// A position by chance, by preference in a sector that is not all zeros.
  private static func interesting(_ data: Data, _ random: StableRandom) -> Int {
    var offset = random.below(data.count)
    for _ in 0..<16 {
      let start = offset / sector * sector
      let end = min(start + sector, data.count)
      if data[start..<end].contains(where: { $0 != 0 }) { break }
      offset = random.below(data.count)
    }
    return offset
  }

  /// Regular files below a directory, sorted by name.
  static func list(_ directory: String) throws -> [(name: String, size: Int)] {
    var files: [(name: String, size: Int)] = []
    for name in try FileManager.default.subpathsOfDirectory(atPath: directory).sorted() {
      let attributes = try FileManager.default.attributesOfItem(atPath: "\(directory)/\(name)")
      guard attributes[.type] as? FileAttributeType == .typeRegular else { continue }
      files.append((name, attributes[.size] as? Int ?? 0))
    }
    return files
  }

  /// The newest segment of a Penstock directory: the one with the highest first LSN.
  static func newestSegment(_ directory: String) throws -> String? {
    try list(directory).map(\.name).filter { $0.hasSuffix(".seg") }.max()
  }
}
