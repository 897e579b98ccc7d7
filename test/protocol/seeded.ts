export async function runSeeded(): Promise<number> {
  return 0;
}
