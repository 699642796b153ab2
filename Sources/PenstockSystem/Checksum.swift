// SPDX-License-Identifier: Apache-2.0
internal import CPenstock

/// CRC-32C (Castagnoli), the checksum of frames, records and segment headers.
public enum CRC32C {
  /// The checksum of `bytes`, continuing from `seed`; 0 starts a new one.
  @inline(__always)
  public static func of(_ bytes: RawSpan, seed: UInt32 = 0) -> UInt32 {
    // unsafe: the pointer is used during the call only.
    unsafe bytes.withUnsafeBytes { unsafe penstock_crc32c(seed, $0.baseAddress, $0.count) }
  }

  /// The same by tables, for comparison in tests.
  package static func portable(_ bytes: RawSpan, seed: UInt32 = 0) -> UInt32 {
    unsafe bytes.withUnsafeBytes { unsafe penstock_crc32c_portable(seed, $0.baseAddress, $0.count) }
  }
}
