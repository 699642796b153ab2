// SPDX-License-Identifier: Apache-2.0
internal import Crypto
package import Penstock

/// The MD5 digests that clients check: of bodies, and of attributes in the layout below.
package enum Digests {
  package static func ofBody(_ body: [UInt8]) -> String {
    var hash = Insecure.MD5()
    body.withUnsafeBytes { hash.update(bufferPointer: $0) }
    return Hex.lowercase(hash.finalize())
  }

  /// What stands for a body where a FIFO queue deduplicates by content: SHA-256 in hexadecimal.
  package static func sha256(_ body: [UInt8]) -> String {
    var hash = SHA256()
    body.withUnsafeBytes { hash.update(bufferPointer: $0) }
    return Hex.lowercase(hash.finalize())
  }

  /// Nil when there are no attributes: a digest of nothing breaks clients.
  ///
  /// Layout, per attribute in ascending order of the name's UTF-8 bytes: length and bytes of the
  /// name, length and bytes of the type, one byte 1 for text or 2 for binary, length and bytes of
  /// the value. Lengths are four bytes, big-endian.
  package static func ofAttributes(_ attributes: [MessageAttribute]) -> String? {
    guard !attributes.isEmpty else { return nil }
    var hash = Insecure.MD5()
    func update(_ bytes: [UInt8]) {
      bytes.withUnsafeBytes { hash.update(bufferPointer: $0) }
    }
    func updateField(_ bytes: [UInt8]) {
      let count = UInt32(truncatingIfNeeded: bytes.count)
      update([24, 16, 8, 0].map { UInt8(truncatingIfNeeded: count >> $0) })
      update(bytes)
    }
    let sorted = attributes.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
    for attribute in sorted {
      updateField(Array(attribute.name.utf8))
      updateField(Array(attribute.type.utf8))
      switch attribute.value {
      case .string(let text):
        update([1])
        updateField(Array(text.utf8))
      case .binary(let bytes):
        update([2])
        updateField(bytes)
      }
    }
    return Hex.lowercase(hash.finalize())
  }
}
